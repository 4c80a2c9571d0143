use super::*;

#[test]
fn a_pair_is_taken_once_and_an_unknown_key_is_refused() {
    let mut pairs = Pairs::parse("--disk", "pool=web,size=20,readonly=on,x=y").unwrap();
    assert_eq!(pairs.take("pool").as_deref(), Some("web"));
    assert_eq!(pairs.take("pool"), None);
    assert_eq!(pairs.take_as::<u8>("size", "20"), Ok(Some(20)));
    assert_eq!(pairs.take_switch("readonly"), Ok(true));
    assert!(pairs.end("pool, size").unwrap_err().contains("`x`"));
}

#[test]
fn invalid_pairs_are_refused() {
    for wrong in ["pool", "=x", "pool=", "pool=a,pool=b"] {
        assert!(Pairs::parse("--disk", wrong).is_err(), "{wrong}");
    }
    let mut pairs = Pairs::parse("--disk", "size=many,readonly=perhaps").unwrap();
    assert!(
        pairs
            .take_as::<u8>("size", "20")
            .unwrap_err()
            .contains("size=20")
    );
    assert!(pairs.take_switch("readonly").is_err());
    let mut pairs = Pairs::parse("--network", "address=1,address=2").unwrap();
    assert_eq!(pairs.take_all::<u8>("address", "1"), Ok(vec![1, 2]));
}
