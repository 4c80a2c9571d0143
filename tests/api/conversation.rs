//! Replays conversation.txt and compares the answers.

use crate::client::Answer;
use crate::monitor::Monitor;
use serde_json::Value;

/// A request and its answer in the file.
struct Exchange<'t> {
    line: usize,
    method: &'t str,
    path: &'t str,
    body: Option<String>,
    status: u16,
    headers: Vec<(&'t str, &'t str)>,
    answer: Expected,
}

/// The expected body.
enum Expected {
    Nothing,
    Exactly(String),
    Like(String),
}

/// Returns `text` with its placeholders replaced.
fn filled(text: &str, dir: &str) -> String {
    let mut parts = text.split('@');
    let mut filled = parts.next().unwrap().to_owned();
    while let Some(placeholder) = parts.next() {
        match placeholder.split_once('*') {
            Some((what, times)) => filled.push_str(&what.repeat(times.parse().unwrap())),
            None => filled.push_str(dir),
        }
        filled.push_str(parts.next().unwrap());
    }
    filled
}

/// Parses the part of the file for one process.
fn exchanges<'t>(part: &'t str, first_line: usize, dir: &str) -> Vec<Exchange<'t>> {
    let mut exchanges = Vec::new();
    let mut lines = part.lines().enumerate().peekable();
    while let Some((at, line)) = lines.next() {
        let Some(request) = line.strip_prefix(">>> ") else {
            assert!(line.trim().is_empty(), "line {}: {line}", first_line + at);
            continue;
        };
        let mut words = request.splitn(3, ' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let body = words.next().map(|body| filled(body, dir));
        let status = lines.next().unwrap().1.strip_prefix("HTTP/1.1 ").unwrap();
        let mut headers = Vec::new();
        while let Some((_, line)) = lines.next_if(|(_, line)| !line.is_empty()) {
            headers.push(line.split_once(": ").unwrap());
        }
        lines.next();
        let mut text = Vec::new();
        while let Some((_, line)) =
            lines.next_if(|(_, line)| !line.is_empty() && !line.starts_with(">>>"))
        {
            text.push(line);
        }
        let text = filled(&text.join("\n"), dir);
        let answer = match (text.strip_prefix("= "), text.strip_prefix("~ ")) {
            (Some(text), _) => Expected::Exactly(text.into()),
            (_, Some(text)) => Expected::Like(text.into()),
            _ => Expected::Nothing,
        };
        exchanges.push(Exchange {
            line: first_line + at,
            method,
            path,
            body,
            status: status.parse().unwrap(),
            headers,
            answer,
        });
    }
    exchanges
}

/// Compares keys and the types of values. Of lists, only the first items are compared.
fn alike(expected: &Value, got: &Value, at: &str) -> Result<(), String> {
    match (expected, got) {
        (Value::Object(expected), Value::Object(got)) => {
            let keys = |object: &serde_json::Map<String, Value>| {
                object.keys().cloned().collect::<Vec<_>>()
            };
            if keys(expected) != keys(got) {
                return Err(format!(
                    "{at}: keys {:?} and not {:?}",
                    keys(got),
                    keys(expected)
                ));
            }
            expected
                .iter()
                .try_for_each(|(key, value)| alike(value, &got[key], &format!("{at}.{key}")))
        }
        (Value::Array(expected), Value::Array(got)) => match (expected.first(), got.first()) {
            (Some(expected), Some(got)) => alike(expected, got, &format!("{at}[0]")),
            (None, None) => Ok(()),
            _ => Err(format!("{at}: {got:?} and not {expected:?}")),
        },
        (Value::Null, Value::Null)
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_)) => Ok(()),
        _ => Err(format!("{at}: {got} and not like {expected}")),
    }
}

fn compare(exchange: &Exchange<'_>, answer: &Answer) -> Result<(), String> {
    if exchange.status != answer.status {
        return Err(format!(
            "status {} and not {}: {}",
            answer.status, exchange.status, answer.body
        ));
    }
    let got: Vec<_> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let masked = got.iter().map(|(name, value)| match *name {
        "Content-Length" => (*name, "*"),
        _ => (*name, *value),
    });
    if masked.collect::<Vec<_>>() != exchange.headers {
        return Err(format!("headers {got:?} and not {:?}", exchange.headers));
    }
    match &exchange.answer {
        Expected::Nothing if answer.body.is_empty() => Ok(()),
        Expected::Exactly(text) if *text == answer.body => Ok(()),
        Expected::Nothing => Err(format!("an answer {}", answer.body)),
        Expected::Exactly(text) => Err(format!("\n  {} and not\n  {text}", answer.body)),
        Expected::Like(text) => {
            let expected = serde_json::from_str(&text.replace('\n', " ")).unwrap();
            alike(&expected, &answer.json(), "body")
        }
    }
}

#[test]
fn a_recorded_conversation_gets_the_same_answers() {
    let text = include_str!("conversation.txt");
    let (mut problems, mut count, mut line) = (Vec::new(), 0, 1);
    for part in text.split("\n== ") {
        let first_line = line;
        line += part.matches('\n').count() + 1;
        // The text before the first process is a comment; after it, each part begins with its title.
        let Some((title, part)) = part.split_once('\n').filter(|_| first_line > 1) else {
            continue;
        };
        let monitor = Monitor::start();
        let dir = monitor.dir().display().to_string();
        let mut client = monitor.client();
        for exchange in exchanges(part, first_line + 1, &dir) {
            let Exchange {
                method, path, body, ..
            } = &exchange;
            let answer = client.call(method, path, body.as_deref());
            count += 1;
            if let Err(problem) = compare(&exchange, &answer) {
                problems.push(format!(
                    "{title}, line {}: {method} {path}: {problem}",
                    exchange.line
                ));
            }
        }
    }
    assert!(
        problems.is_empty(),
        "{} problems:\n{}",
        problems.len(),
        problems.join("\n")
    );
    assert!(count > 100, "only {count} requests");
}
