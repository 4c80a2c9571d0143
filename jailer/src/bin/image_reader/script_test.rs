use super::*;

fn words(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let variables = variables.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    let variables: Variables = variables.collect();
    let mut words = Vec::new();
    for token in tokens(text) {
        if let Token::Word(word) = token {
            words.extend(expand(&word, &variables).unwrap());
        }
    }
    words
}

#[test]
fn quotes_escapes_and_variables_are_as_in_a_shell() {
    let variables = [("a", "1 2"), ("e", "")];
    for (text, expected) in [
        ("a  b\tc", &["a", "b", "c"][..]),
        ("'a $a' \"b $a\" c$a", &["a $a", "b 1 2", "c1", "2"]),
        ("$e x${e}y '' \"$e\"", &["xy", "", ""]),
        ("a\\ b \"\\$a \\x\" \\$a", &["a b", "$a \\x", "$a"]),
        ("a # b\nc#d", &["a", "c#d"]),
        ("a\\\nb", &["ab"]),
        ("\"open $a", &["open 1 2"]),
        ("$ $? ${a", &["$", "1", "2"]),
    ] {
        assert_eq!(words(text, &variables), expected, "{text}");
    }
}

#[test]
fn braces_and_separators_are_tokens() {
    let found = tokens("menuentry a{b;}");
    let kinds: Vec<_> = found
        .iter()
        .map(|token| match token {
            Token::Word(_) => 'w',
            Token::End => ';',
            Token::Open => '{',
            Token::Close => '}',
        })
        .collect();
    assert_eq!(kinds.iter().collect::<String>(), "ww{w;};");
    assert_eq!(found[0].plain(), Some("menuentry"));
    assert_eq!(tokens("'if'")[0].plain(), None);
}

#[test]
fn the_length_of_a_word_is_limited() {
    let long = "a".repeat(5000);
    let variables = Variables::from([("a".into(), long)]);
    let token = tokens("$a").remove(0);
    let Token::Word(word) = token else {
        panic!("{token:?}")
    };
    assert!(expand(&word, &variables).is_err());
}
