//! boto3, as a backend uses it, against the real gateway. The checks are in `tests/programs/sdk/boto3_check.py`.

use std::path::Path;

use tidegate_testing::{Process, Tidegate, run};

/// Debian's own: it has boto3 and websockets from Debian's packages.
const PYTHON: &str = "/usr/bin/python3";

/// Runs a script of `tests/programs/sdk` against a gateway with this configuration and against its backend.
async fn check(config: &str, script: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/sdk");
    let path = |name: &str| folder.join(name).to_str().expect("a path in UTF-8").to_owned();
    let mut backend = Process::start(PYTHON, &[&path("backend.py")], &[]);
    let backend_url = backend.url().await;
    let gateway = Tidegate::serve(&folder.join(config), &[("BACKEND", &backend_url)]).await;
    let (public, internal) = (gateway.public.to_string(), gateway.internal.to_string());
    let (succeeded, output) = run(PYTHON, &[&path(script), &public, &internal, &backend_url], &[]).await;
    println!("{output}");
    assert!(succeeded, "{output}");
}

#[tokio::test]
async fn boto3_posts_gets_deletes_and_understands_every_error() {
    check("tidegate.yaml", "boto3_check.py").await;
}

#[tokio::test]
async fn boto3_posts_with_the_right_key_and_gets_awss_codes_otherwise() {
    check("access.yaml", "boto3_sign_check.py").await;
}
