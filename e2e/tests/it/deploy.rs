//! What stands in `deploy/` is what Kubernetes and our own programs accept.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::node::{Role, run};
use e2e::servers::{Env, installed};
use serde_json::Value;

const CONTAINERS: &str = include_str!("deploy.py");

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

#[test]
fn kubernetes_accepts_the_manifests() {
    let files: Vec<_> =
        std::fs::read_dir(deploy().join("kubernetes")).unwrap().map(|f| f.unwrap().path()).collect();
    assert!(!files.is_empty());
    let program = installed("kubernetes").join("bin/kubernetes-validate");
    let output = Command::new(program).arg("--strict").args(&files).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// A flag that was renamed, or a setting that is no more, is found here and not by a pod that does not start.
#[tokio::test]
async fn our_programs_accept_what_the_containers_are_started_with() {
    let python = installed("kubernetes").join("bin/python");
    let output = Command::new(python).args(["-c", CONTAINERS]).arg(deploy()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let containers: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    for form in ["compose.yaml", ".yaml: "] {
        for role in Role::ALL {
            let has =
                |c: &Value| c["argv"][0] == role.program() && c["name"].as_str().unwrap().contains(form);
            assert!(containers.iter().any(has), "{form} starts no {}", role.program());
        }
    }
    for container in &containers {
        let argv: Vec<&str> =
            container["argv"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
        let args: Vec<&str> = argv[1..].iter().copied().chain(["--check-config"]).collect();
        let env: Env = container["env"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| {
                (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            })
            .collect();
        let output = run(argv[0], &args, &env).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{}: {said}", container["name"]);
    }
}
