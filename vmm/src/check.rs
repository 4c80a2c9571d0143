//! `--check`: everything wrong with a configuration file and with what it names, at once.

use crate::logging::chain;
use devices::block::backing::Backing;
use resources::{Problem, VmConfig, open_regular};
use std::path::Path;

/// What is wrong with `file`; nothing if a guest can be started from it, as far as can be told without
/// starting it. The second part is what would be ignored.
pub fn problems(file: &Path) -> (Vec<String>, Vec<String>) {
    let (config, mut problems, warnings) = match VmConfig::read_from_file(file) {
        Err(e) => return (vec![chain(&e)], Vec::new()),
        Ok((config, problems, warnings)) => (config, problems, warnings),
    };
    let mut wrong = |key: String, message: String| problems.push(Problem::new(key, message));
    let source = &config.boot_source;
    let initrd = source.initrd_path.as_deref();
    for (key, path) in [
        (
            "kernel_image_path",
            Some(source.kernel_image_path.as_path()),
        ),
        ("initrd_path", initrd),
    ] {
        let path = path.filter(|path| !path.as_os_str().is_empty());
        if let Some(Err(e)) = path.map(open_regular) {
            let path = path.unwrap_or(file).display();
            wrong(
                format!("boot-source.{key}"),
                format!("cannot open {path}: {e}"),
            );
        }
    }
    if let Some(Err(e)) = source.boot_args.as_deref().map(boot::CommandLine::new) {
        wrong("boot-source.boot_args".into(), e.to_string());
    }
    for (i, drive) in config.drives.iter().enumerate() {
        let path = drive.path_on_host.as_deref();
        // The jailer finds volumes, and makes an image that is not there yet.
        if drive.pool.is_some() {
            continue;
        }
        let made = drive.size_mib.is_some() || drive.template.is_some();
        let path = path.filter(|path| !(path.as_os_str().is_empty() || made && !path.exists()));
        if let Some(Err(e)) = path.map(|path| Backing::look(path, drive.is_read_only)) {
            wrong(format!("drives[{i}].path_on_host"), chain(&e));
        }
    }
    let problems = problems.iter().map(ToString::to_string).collect();
    (problems, warnings)
}

/// Exit text of the check: all problems, a line each.
pub fn report(file: &Path, problems: &[String]) -> String {
    problems.iter().fold(String::new(), |text, problem| {
        let name = file.display().to_string();
        // What the parser says names the file already.
        match problem.starts_with(&name) {
            true => format!("{text}{problem}\n"),
            false => format!("{text}{name}: {problem}\n"),
        }
    })
}

#[cfg(test)]
#[path = "check_test.rs"]
mod check_test;
