//! The examples as people run them: processes with arguments, exit codes and files.

use std::path::Path;
use std::process::{Command, Output};

/// Runs an example that was built beside this test.
pub fn example(name: &str, arguments: &[&str]) -> Output {
    example_with(name, arguments, &[])
}

/// Likewise, with variables of the environment.
pub fn example_with(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    command(name).args(arguments).envs(environment.iter().copied()).output().unwrap()
}

/// The example itself, to be run as the caller likes.
pub fn command(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(
        path.with_extension(std::env::consts::EXE_EXTENSION).is_file(),
        "build the examples first: {}",
        path.display()
    );
    Command::new(path)
}

/// Runs an example that must do its work; gives what it printed.
#[track_caller]
pub fn succeeds(name: &str, arguments: &[&str]) -> String {
    let output = example(name, arguments);
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} {arguments:?}: {out}{error}");
    out.into_owned()
}

/// Runs an example that must refuse with `code`, naming every one of `parts`.
#[track_caller]
pub fn refuses(name: &str, arguments: &[&str], code: i32, parts: &[&str]) {
    let output = example(name, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{name} {arguments:?}: {error}");
    assert!(error.contains("error:") && !error.contains("panicked"), "{error}");
    for part in parts {
        assert!(error.contains(part), "`{part}` is not named: {error}");
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
