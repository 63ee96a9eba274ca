//! The AWS SDK for JavaScript, as a backend uses it, against the real gateway. The checks are in
//! `tests/programs/sdk/js/check.mjs`; the SDK's version stands in the lock file beside it.
//!
//! Skipped, with a line that says so, where npm cannot install the SDK.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tidegate_testing::{Process, Tidegate, exists, run};

#[tokio::test]
async fn the_javascript_sdk_posts_gets_deletes_and_understands_every_error() {
    let installed = match install().await {
        Ok(folder) => folder,
        // Past the capture of the test's output, so that nobody takes it for a run.
        Err(why) => return writeln!(std::io::stderr(), "skipped: {why}").expect("stderr is open"),
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/sdk");
    let backend = folder.join("backend.py").to_str().expect("a path in UTF-8").to_owned();
    let mut backend = Process::start("/usr/bin/python3", &[&backend], &[]);
    let backend_url = backend.url().await;
    let gateway = Tidegate::serve(&folder.join("tidegate.yaml"), &[("BACKEND", &backend_url)]).await;
    let check = installed.join("check.mjs").to_str().expect("a path in UTF-8").to_owned();
    let arguments = ["--experimental-websocket", &check, &gateway.public.to_string(), &backend_url];
    let (succeeded, output) = run("node", &arguments, &[]).await;
    println!("{output}");
    assert!(succeeded, "{output}");
}

/// Puts the SDK and the check into a folder below `target/`, unless the SDK is there already.
async fn install() -> Result<PathBuf, String> {
    if !exists("node") || !exists("npm") {
        return Err("the AWS SDK for JavaScript needs node and npm".into());
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/sdk/js");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sdk-js");
    fs::create_dir_all(&folder).expect("target/ can be written");
    let lock = fs::read(source.join("package-lock.json")).expect("the lock file is there");
    let complete = folder.join("node_modules/.complete");
    let installed = fs::read(&complete).is_ok_and(|installed| installed == lock);
    for name in ["package.json", "package-lock.json", "check.mjs"] {
        fs::copy(source.join(name), folder.join(name)).expect("target/ can be written");
    }
    if !installed {
        let prefix = folder.to_str().expect("a path in UTF-8");
        let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", prefix];
        let (succeeded, output) = run("npm", &arguments, &[]).await;
        if !succeeded {
            return Err(format!("npm could not install the AWS SDK for JavaScript: {output}"));
        }
        fs::write(complete, lock).expect("target/ can be written");
    }
    Ok(folder)
}
