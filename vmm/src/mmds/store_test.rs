use super::*;
use serde_json::json;

#[test]
fn merges_are_those_of_rfc_7396() {
    // The examples of appendix A.
    for (target, patch, merged) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (
            json!({"a": "b"}),
            json!({"b": "c"}),
            json!({"a": "b", "b": "c"}),
        ),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (
            json!({"a": "b", "b": "c"}),
            json!({"a": null}),
            json!({"b": "c"}),
        ),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
        (
            json!({"a": {"b": "c"}}),
            json!({"a": {"b": "d", "c": null}}),
            json!({"a": {"b": "d"}}),
        ),
        (
            json!({"a": [{"b": "c"}]}),
            json!({"a": [1]}),
            json!({"a": [1]}),
        ),
        (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
        (json!({"a": "b"}), json!(["c"]), json!(["c"])),
        (json!({"a": "foo"}), json!(null), json!(null)),
        (json!({"a": "foo"}), json!("bar"), json!("bar")),
        (
            json!({"e": null}),
            json!({"a": 1}),
            json!({"e": null, "a": 1}),
        ),
        (
            json!([1, 2]),
            json!({"a": "b", "c": null}),
            json!({"a": "b"}),
        ),
        (
            json!({}),
            json!({"a": {"bb": {"ccc": null}}}),
            json!({"a": {"bb": {}}}),
        ),
    ] {
        let mut store = Store::new(1000);
        store.put(target).unwrap();
        store.patch(patch.clone()).unwrap();
        assert_eq!(*store.value(), merged, "{patch}");
    }
}

#[test]
fn a_patch_needs_data() {
    let mut store = Store::new(1000);
    let error = store.patch(json!({})).unwrap_err();
    assert_eq!(error.to_string(), "The MMDS data store is not initialized.");
    store.put(json!(null)).unwrap();
    assert_eq!(store.patch(json!({"a": 1})), Ok(()));
}

#[test]
fn a_change_beyond_the_limit_is_refused() {
    // {"a":"bcd"} has 11 bytes.
    let mut store = Store::new(11);
    store.put(json!({"a": "bcd"})).unwrap();
    for error in [
        store.put(json!({"a": "bcde"})).unwrap_err(),
        store.patch(json!({"a": "bcde"})).unwrap_err(),
        store.patch(json!({"b": 1})).unwrap_err(),
    ] {
        assert_eq!(error.to_string(), "The MMDS patch request doesn't fit.");
    }
    assert_eq!(*store.value(), json!({"a": "bcd"}));
    store.patch(json!({"a": null, "b": 1})).unwrap();
    assert_eq!(*store.value(), json!({"b": 1}));
}
