//! The list of deprecated fields that clients still send. They are accepted, and the API answers with
//! `Deprecation: true`.

use serde_json::Value;

/// The condition under which a field is deprecated.
enum When {
    /// The field is present, and neither null nor false.
    Given,
    /// The field is absent or has another value.
    IsNot(&'static str),
}

struct Deprecated {
    /// Path of the request without the leading slash.
    path: &'static str,
    field: &'static str,
    when: When,
    /// The replacement.
    instead: &'static str,
}

const fn given(path: &'static str, field: &'static str, instead: &'static str) -> Deprecated {
    Deprecated {
        path,
        field,
        when: When::Given,
        instead,
    }
}

const LIST: [Deprecated; 6] = [
    given(
        "machine-config",
        "cpu_template",
        "PUT /cpu-config describes a template",
    ),
    given("vsock", "vsock_id", "leave it out: there is one vsock"),
    Deprecated {
        path: "mmds/config",
        field: "version",
        when: When::IsNot("V2"),
        instead: "V2, whose requests need a token",
    },
    given("snapshot/load", "mem_file_path", "mem_backend"),
    given(
        "snapshot/load",
        "enable_diff_snapshots",
        "track_dirty_pages",
    ),
    given(
        "snapshot/create",
        "version",
        "leave it out: there is one version",
    ),
];

/// Returns a line for each deprecated field in the JSON `body` of a request to `path`, with its replacement.
pub fn deprecated(path: &str, body: &Value) -> Vec<String> {
    let found = LIST.iter().filter(|entry| {
        let value = body.get(entry.field).unwrap_or(&Value::Null);
        let counts = match entry.when {
            When::Given => !matches!(value, Value::Null | Value::Bool(false)),
            When::IsNot(good) => value.as_str() != Some(good),
        };
        entry.path == path && counts
    });
    found
        .map(|entry| {
            format!(
                "/{path}: {} is deprecated; instead: {}",
                entry.field, entry.instead
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn deprecated_fields_are_reported_only_for_their_own_request() {
        let found = |path, body: Value| deprecated(path, &body).len();
        assert_eq!(found("machine-config", json!({"cpu_template": "None"})), 1);
        assert_eq!(found("machine-config", json!({"cpu_template": null})), 0);
        assert_eq!(found("drives", json!({"cpu_template": "None"})), 0);
        assert_eq!(found("mmds/config", json!({"network_interfaces": []})), 1);
        assert_eq!(found("mmds/config", json!({"version": "V1"})), 1);
        assert_eq!(found("mmds/config", json!({"version": "V2"})), 0);
        let load = json!({"mem_file_path": "m", "enable_diff_snapshots": false});
        assert_eq!(found("snapshot/load", load), 1);
        assert_eq!(found("snapshot/create", json!({"version": "0.23.0"})), 1);
        assert_eq!(found("vsock", json!({"vsock_id": "1"})), 1);
        assert_eq!(found("vsock", json!([1])), 0);
    }
}
