//! Checks requests and answers against `resources/openapi.yaml`.

use crate::client::Answer;
use crate::schema::{problems, resolve};
use serde_json::Value;
use std::path::Path;
use std::sync::OnceLock;

/// Returns the parsed file.
pub fn root() -> &'static Value {
    static ROOT: OnceLock<Value> = OnceLock::new();
    ROOT.get_or_init(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resources/openapi.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        serde_yaml_ng::from_str(&text).unwrap_or_else(|e| panic!("openapi.yaml: {e}"))
    })
}

/// An operation of the file.
pub struct Operation {
    /// Method in a request.
    pub method: String,
    /// Path, with `{name}` for an id.
    pub path: String,
    pub spec: &'static Value,
}

impl Operation {
    /// Returns an example of the body, if it has one.
    pub fn example(&self) -> Option<String> {
        let example = self
            .spec
            .pointer("/requestBody/content/application~1json/example");
        example.map(ToString::to_string)
    }

    /// Returns the path with the id of the example.
    pub fn example_path(&self) -> String {
        let body = self
            .spec
            .pointer("/requestBody/content/application~1json/example");
        let parts = self.path.split('/').map(|part| {
            let name = part
                .strip_prefix('{')
                .and_then(|part| part.strip_suffix('}'));
            let id = name.and_then(|name| body?.get(name)?.as_str());
            id.or(name).unwrap_or(part)
        });
        parts.collect::<Vec<_>>().join("/")
    }
}

/// Returns all operations.
pub fn operations() -> Vec<Operation> {
    let paths = root()["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, item)| {
        let item = item.as_object().unwrap().iter();
        let methods = item.filter(|(method, _)| *method != "parameters");
        methods.map(|(method, spec)| Operation {
            method: method.to_uppercase(),
            path: path.clone(),
            spec,
        })
    });
    operations.collect()
}

/// Returns the operation of a request, whose path may be longer than the file's.
fn operation(method: &str, path: &str) -> Option<Operation> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let fits = |of: &Operation| {
        let mut own = of.path.split('/').filter(|part| !part.is_empty());
        let mut asked = parts.iter();
        of.method == method
            && own.all(|part| {
                asked
                    .next()
                    .is_some_and(|a| part.starts_with('{') || part == *a)
            })
            && (of.path != "/" || parts.is_empty())
    };
    let found = operations().into_iter().filter(fits);
    found.max_by_key(|of| of.path.split('/').count())
}

/// Fails unless the file describes `answer` for the request, and allows the request if it succeeded.
pub fn check(method: &str, path: &str, body: Option<&str>, answer: &Answer) {
    let Some(operation) = operation(method, path) else {
        assert_eq!(answer.status, 400, "{method} {path} is not in openapi.yaml");
        check_content(
            resolve(root(), &"#/components/responses/Refused".into()),
            path,
            answer,
        );
        return;
    };
    let at = format!("{method} {}", operation.path);
    let response = &operation.spec["responses"][answer.status.to_string()];
    assert!(
        !response.is_null(),
        "{at} does not list status {}: {}",
        answer.status,
        answer.body
    );
    let response = match response.get("$ref") {
        Some(reference) => resolve(root(), reference),
        None => response,
    };
    check_content(response, &at, answer);
    if answer.header("Deprecation").is_some() {
        assert_eq!(answer.header("Deprecation"), Some("true"));
        assert!(response["headers"].get("Deprecation").is_some(), "{at}");
    }
    check_body(&operation, &at, body, answer);
}

fn check_content(response: &Value, at: &str, answer: &Answer) {
    let kind = answer.header("Content-Type");
    let Some(content) = response["content"].as_object() else {
        assert_eq!((kind, answer.body.as_str()), (None, ""), "{at}");
        return;
    };
    let kind = kind.unwrap_or_else(|| panic!("{at}: no Content-Type"));
    let media = content.get(kind);
    let media = media.unwrap_or_else(|| panic!("{at}: Content-Type {kind} is not in openapi.yaml"));
    let value = match kind {
        "application/json" => answer.json(),
        _ => answer.body.clone().into(),
    };
    let found = problems(root(), &media["schema"], &value, "answer");
    assert!(found.is_empty(), "{at}: {found:?}");
}

/// Fails unless an accepted body fits the schema, and a body that was refused for a key does not.
fn check_body(operation: &Operation, at: &str, body: Option<&str>, answer: &Answer) {
    let described = operation.spec.get("requestBody");
    if answer.status < 300 {
        let needed = described.is_some_and(|body| body["required"] == true);
        assert!(body.is_some() || !needed, "{at} succeeds without a body");
    }
    let (Some(described), Some(body)) = (described, body) else {
        return;
    };
    let Ok(value) = serde_json::from_str(body) else {
        return;
    };
    let schema = &described["content"]["application/json"]["schema"];
    let found = problems(root(), schema, &value, "body");
    let says = |text| answer.status == 400 && answer.body.contains(text);
    if answer.status < 300 {
        assert!(found.is_empty(), "{at} took {body}: {found:?}");
    } else if says("unknown field") || says("missing field `") || says("unknown variant") {
        assert!(!found.is_empty(), "{at} refused {body}: {}", answer.body);
    }
}

#[test]
fn examples_match_their_schemas_and_name_their_phases() {
    for operation in operations() {
        let at = format!("{} {}", operation.method, operation.path);
        let when = operation.spec["x-when"].as_str().unwrap();
        assert!(
            ["before", "after", "any", "depends"].contains(&when),
            "{at}: {when}"
        );
        assert!(
            operation.spec["summary"]
                .as_str()
                .is_some_and(|text| text.ends_with('.') || text.ends_with(".")),
            "{at}"
        );
        if let Some(body) = operation.spec.get("requestBody") {
            let media = &body["content"]["application/json"];
            let found = problems(root(), &media["schema"], &media["example"], "example");
            assert!(found.is_empty(), "{at}: {found:?}");
        }
    }
}
