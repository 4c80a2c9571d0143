//! The part of JSON Schema that `resources/openapi.yaml` uses. An unknown keyword is an error of the file.

use serde_json::Value;

/// Keywords that describe and do not constrain.
const NOTES: [&str; 5] = [
    "description",
    "default",
    "deprecated",
    "x-bantam",
    "example",
];

/// Returns the problems of `value` with `schema`, each with its path. `root` is the whole file.
pub fn problems(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let Value::Object(keywords) = schema else {
        panic!("{at}: a schema is an object, and not {schema}");
    };
    let mut found = Vec::new();
    let mut wrong = |what: String| found.push(format!("{at}: {what}"));
    let mut below = Vec::new();
    for (keyword, argument) in keywords {
        match keyword.as_str() {
            "$ref" => below.extend(problems(root, resolve(root, argument), value, at)),
            "type" if !types(argument).contains(&type_of(value, argument)) => {
                wrong(format!("{value} is not of type {argument}"));
            }
            "enum" if !argument.as_array().unwrap().contains(value) => {
                wrong(format!("{value} is none of {argument}"));
            }
            "minimum"
                if value
                    .as_i64()
                    .is_some_and(|n| n < argument.as_i64().unwrap()) =>
            {
                wrong(format!("{value} is less than {argument}"));
            }
            "maximum"
                if value
                    .as_u64()
                    .is_some_and(|n| n > argument.as_u64().unwrap()) =>
            {
                wrong(format!("{value} is more than {argument}"));
            }
            "minLength" if length(value).is_some_and(|n| n < argument.as_u64().unwrap()) => {
                wrong(format!("{value} is shorter than {argument}"));
            }
            "maxLength" if length(value).is_some_and(|n| n > argument.as_u64().unwrap()) => {
                wrong(format!("{value} is longer than {argument}"));
            }
            "required" if value.is_object() => {
                for name in argument.as_array().unwrap() {
                    if value.get(name.as_str().unwrap()).is_none() {
                        wrong(format!("{name} is missing"));
                    }
                }
            }
            "properties" => {
                for (name, schema) in argument.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        below.extend(problems(root, schema, value, &format!("{at}.{name}")));
                    }
                }
            }
            "additionalProperties" if value.is_object() => {
                let known = keywords.get("properties");
                for (name, value) in value.as_object().unwrap() {
                    match argument {
                        _ if known.is_some_and(|known| known.get(name).is_some()) => {}
                        Value::Bool(false) => wrong(format!("{name} is not known")),
                        schema => {
                            below.extend(problems(root, schema, value, &format!("{at}.{name}")))
                        }
                    }
                }
            }
            "items" => {
                for (i, value) in value.as_array().into_iter().flatten().enumerate() {
                    below.extend(problems(root, argument, value, &format!("{at}[{i}]")));
                }
            }
            "oneOf" => {
                let choices = argument.as_array().unwrap().iter();
                let tried: Vec<_> = choices.map(|one| problems(root, one, value, at)).collect();
                let fitting = tried.iter().filter(|problems| problems.is_empty()).count();
                if fitting != 1 {
                    wrong(format!("{value} fits {fitting} of {argument}: {tried:?}"));
                }
            }
            "type"
            | "enum"
            | "minimum"
            | "maximum"
            | "minLength"
            | "maxLength"
            | "required"
            | "additionalProperties" => {}
            note if NOTES.contains(&note) => {}
            other => panic!("{at}: keyword {other} is not known to tests/api/schema.rs"),
        }
    }
    found.extend(below);
    found
}

/// Returns the target of a reference.
pub fn resolve<'r>(root: &'r Value, reference: &Value) -> &'r Value {
    let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
    let found = root.pointer(pointer);
    found.unwrap_or_else(|| panic!("there is no {reference}"))
}

fn length(value: &Value) -> Option<u64> {
    value.as_str().map(|text| text.chars().count() as u64)
}

fn types(argument: &Value) -> Vec<&str> {
    match argument {
        Value::Array(types) => types.iter().map(|one| one.as_str().unwrap()).collect(),
        one => vec![one.as_str().unwrap()],
    }
}

fn type_of(value: &Value, wanted: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if !n.is_f64() && !types(wanted).contains(&"number") => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[test]
fn problems_are_reported_with_their_path() {
    let root = serde_json::json!({"a": {"type": ["integer", "null"], "minimum": 1}});
    let schema = serde_json::json!({
        "type": "object", "required": ["n"], "additionalProperties": false,
        "properties": {"n": {"$ref": "#/a"}, "list": {"type": "array", "items": {"enum": ["x"]}}},
    });
    let told = |value: Value| problems(&root, &schema, &value, "body").join("; ");
    assert_eq!(told(serde_json::json!({"n": null, "list": ["x"]})), "");
    assert_eq!(
        told(serde_json::json!({"n": 0})),
        "body.n: 0 is less than 1"
    );
    assert_eq!(
        told(serde_json::json!({"n": 1.5})),
        "body.n: 1.5 is not of type [\"integer\",\"null\"]"
    );
    assert_eq!(
        told(serde_json::json!({"m": 1})),
        "body: m is not known; body: \"n\" is missing"
    );
    assert_eq!(
        told(serde_json::json!({"n": 1, "list": ["y"]})),
        "body.list[0]: \"y\" is none of [\"x\"]"
    );
}
