//! boto3, as a backend uses it, against the real gateway. The checks are in `tests/sdk/boto3_check.py`.

mod process;

use std::path::Path;

use process::{Process, Tidegate, run};

/// Debian's own: it has boto3 and websockets from Debian's packages.
const PYTHON: &str = "/usr/bin/python3";

#[tokio::test]
async fn boto3_posts_gets_deletes_and_understands_every_error() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk");
    let path = |name: &str| folder.join(name).to_str().expect("a path in UTF-8").to_owned();
    let mut backend = Process::start(PYTHON, &[&path("backend.py")], &[]);
    let backend_url = backend.url().await;
    let gateway = Tidegate::serve(&folder.join("tidegate.yaml"), &[("BACKEND", &backend_url)]).await;
    let (public, internal) = (gateway.public.to_string(), gateway.internal.to_string());
    let (succeeded, output) = run(PYTHON, &[&path("boto3_check.py"), &public, &internal, &backend_url], &[]).await;
    println!("{output}");
    assert!(succeeded, "{output}");
}
