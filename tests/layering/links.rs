//! Checks the links of a Markdown page.

use std::fs;
use std::path::Path;

/// Fails if a link of `page` to a file leads nowhere. Returns the number of these links.
pub fn check(page: &Path) -> usize {
    let text = fs::read_to_string(page).unwrap();
    let links = text.split("](").skip(1);
    let links = links.map(|rest| rest.split([')', '#']).next().unwrap());
    let links = links.filter(|link| !link.is_empty() && !link.contains("://"));
    let missing = |link: &&str| !page.parent().unwrap().join(link).exists();
    let broken: Vec<&str> = links.clone().filter(missing).collect();
    assert!(
        broken.is_empty(),
        "{}: {broken:?} do not exist",
        page.display()
    );
    links.count()
}
