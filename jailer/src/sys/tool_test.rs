use super::*;
use crate::undo::Undo;

fn undo() -> Undo {
    Undo::new(|| Ok(()))
}

fn shell(script: &str) -> Tool {
    Tool::new("sh", "dash").unwrap().args(["-c", script])
}

#[test]
fn a_program_sees_its_input_and_no_environment() {
    let said = shell("cat; echo ${HOME-none}").input("in\n");
    assert_eq!(said.run(&mut undo()).unwrap(), "in\nnone\n");
}

#[test]
fn standard_error_is_reported_in_one_safe_line() {
    let error = shell("printf 'a\\033[2J\\n\\nb\\n' >&2; exit 3");
    let error = error.run(&mut undo()).unwrap_err();
    let text = crate::error::chain(&error);
    assert!(text.ends_with(": a?[2J; b"), "{text}");
}

#[test]
fn a_program_that_hangs_is_ended_at_its_time_limit_and_by_a_signal() {
    let hang = || shell("trap '' TERM; sleep 60 & wait; sleep 60");
    let started = Instant::now();
    let error = hang().limit(Duration::from_millis(50)).run(&mut undo());
    assert!(crate::error::chain(&error.unwrap_err()).contains("did not end"));
    let mut asked = 0;
    let mut undo = Undo::new(move || {
        asked += 1;
        match asked < 5 {
            true => Ok(()),
            false => Err(Error::Stopped(Signal::SIGINT)),
        }
    });
    assert!(matches!(hang().run(&mut undo), Err(Error::Stopped(_))));
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_missing_program_is_reported_with_its_package() {
    let error = need("no-such-program", "some-package").unwrap_err();
    assert!(error.to_string().contains("apt install some-package"));
}
