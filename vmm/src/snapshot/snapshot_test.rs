use super::*;
use std::path::Path;

#[test]
fn errors_name_the_file() {
    let error = load(
        Path::new("/nonexistent/state"),
        Path::new("/nonexistent/memory"),
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains("/nonexistent/state"), "{error}");
    let error = load(Path::new("/dev/zero"), Path::new("/dev/zero")).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
}
