use super::*;
use std::collections::HashSet;

const START: Duration = Duration::from_secs(5000);

fn after(seconds: u64) -> Duration {
    START + Duration::from_secs(seconds)
}

#[test]
fn a_token_is_valid_until_it_expires() {
    let authority = TokenAuthority::new(START).unwrap();
    let token = authority.issue(60, after(10)).unwrap();
    assert!(authority.accepts(token.as_bytes(), after(10)));
    assert!(authority.accepts(token.as_bytes(), after(70) - Duration::from_millis(1)));
    assert!(!authority.accepts(token.as_bytes(), after(70)));
    assert!(!authority.accepts(token.as_bytes(), after(100_000)));
}

#[test]
fn the_time_to_live_is_limited() {
    let authority = TokenAuthority::new(START).unwrap();
    for ttl in [1, 21600] {
        assert!(authority.issue(ttl, START).is_ok());
    }
    for ttl in [0, 21601, u32::MAX] {
        assert_eq!(
            authority.issue(ttl, START).unwrap_err().to_string(),
            format!(
                "Invalid time to live value provided for token: {ttl}. \
                 Please provide a value between 1 and 21600."
            )
        );
    }
}

#[test]
fn a_changed_token_is_invalid() {
    let authority = TokenAuthority::new(START).unwrap();
    let token = authority.issue(60, START).unwrap();
    assert_eq!(token.len(), 54);
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=+/ ";
    for at in 0..token.len() {
        for other in alphabet {
            let mut changed = token.clone().into_bytes();
            if changed[at] != *other {
                changed[at] = *other;
                assert!(!authority.accepts(&changed, START), "{at} {other}");
            }
        }
    }
    for len in 0..token.len() {
        assert!(!authority.accepts(&token.as_bytes()[..len], START));
    }
    assert!(!authority.accepts(format!("{token}A").as_bytes(), START));
    assert!(!authority.accepts(&[0xff; 54], START));
    assert!(!authority.accepts(&vec![b'A'; 1 << 20], START));
}

#[test]
fn a_token_of_another_process_is_invalid() {
    let ours = TokenAuthority::new(START).unwrap();
    let tokens: HashSet<String> = (0..8)
        .map(|_| {
            TokenAuthority::new(START)
                .unwrap()
                .issue(60, START)
                .unwrap()
        })
        .collect();
    assert_eq!(tokens.len(), 8, "each process has a key of its own");
    assert!(
        tokens
            .iter()
            .all(|token| !ours.accepts(token.as_bytes(), START))
    );
}
