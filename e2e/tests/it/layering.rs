//! The layering, kept by a test: who may depend on whom, and who may name what.

use std::path::{Path, PathBuf};
use std::process::Command;

const ROLES: [&str; 4] = ["writer-node", "reader-node", "tailer-node", "compactor-node"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn cargo(args: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(cargo).args(args).current_dir(root()).output().unwrap();
    assert!(out.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// The packages that `package` pulls in, by cargo's own word. Asked package by package: the features of a whole
/// workspace's build are unified, which hides the truth.
fn tree(package: &str, features: &[&str]) -> Vec<String> {
    let mut args = vec!["tree", "--locked", "--offline", "-p", package, "-e", "normal", "--prefix", "none"];
    args.extend(features);
    let names = cargo(&args);
    names.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|n| n != "target") {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// A file's code: no comments, and nothing from its test module on.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let body = text.split("#[cfg(test)]").next().unwrap();
    let lines = body.lines().filter(|l| !l.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn roles_never_depend_on_each_other() {
    for role in ROLES {
        let packages = tree(role, &["--all-features"]);
        for other in ROLES.iter().filter(|o| **o != role) {
            assert!(!packages.iter().any(|p| p == other), "{role} depends on {other}");
        }
    }
}

#[test]
fn engine_libraries_are_light_without_the_server_feature() {
    for package in ROLES.iter().chain(&["isle-storage"]) {
        let packages = tree(package, &["--no-default-features"]);
        assert!(packages.iter().any(|p| p == "bytes"), "{package}: the tree is empty");
        for heavy in ["axum", "clap", "etcd-client", "tonic", "hyper", "reqwest", "isle-service"] {
            assert!(!packages.iter().any(|p| p == heavy), "{package} pulls in {heavy} without its features");
        }
    }
}

#[test]
fn the_process_shell_knows_no_engine_type() {
    let packages = tree("isle-service", &[]);
    assert!(!packages.iter().any(|p| p == "isle-storage" || ROLES.contains(&p.as_str())));
}

#[test]
fn the_test_kit_never_ships() {
    for package in ROLES.iter().chain(&["isle", "isle-storage", "isle-service"]) {
        assert!(
            !tree(package, &["--all-features"]).iter().any(|p| p == "isle-testkit"),
            "{package} ships it"
        );
    }
}

/// The simulation, the chaos tests and `isle stress` record each in its own way and are judged by the same rules.
#[test]
fn the_judge_of_histories_knows_neither_engine_nor_runtime() {
    let packages = tree("isle-history", &["--all-features"]);
    assert!(packages.iter().any(|p| p == "serde"), "the tree is empty");
    for heavy in ["tokio", "isle-storage", "isle-service", "axum", "hyper"] {
        assert!(!packages.iter().any(|p| p == heavy), "isle-history pulls in {heavy}");
    }
    let mut files = Vec::new();
    sources(&root().join("common/history/src"), &mut files);
    for file in files.iter().filter(|f| !f.components().any(|c| c.as_os_str() == "tests")) {
        for word in ["SystemTime", "Instant::now", "std::fs", "std::net", "std::env", "println!"] {
            assert!(!code(file).contains(word), "{} names {word}", file.display());
        }
    }
}

#[test]
fn only_one_place_names_each_outside_service() {
    let root = root();
    let mut files = Vec::new();
    for dir in ["common", "writer-node", "reader-node", "tailer-node", "compactor-node", "cli"] {
        sources(&root.join(dir), &mut files);
    }
    assert!(files.len() > 20);
    for (name, home) in [
        ("object_store", "common/storage/src/object"),
        ("etcd_client", "common/storage/src/coordination/etcd"),
    ] {
        let mut users = 0;
        for file in files.iter().filter(|f| code(f).contains(&format!("{name}::"))) {
            assert!(file.starts_with(root.join(home)), "{} names {name}", file.display());
            users += 1;
        }
        assert!(users > 0, "nobody names {name}: this test looks for the wrong word");
    }
}

#[test]
fn formats_and_the_manifest_are_pure() {
    let storage = root().join("common/storage/src");
    let mut files: Vec<PathBuf> = ["ids.rs", "row.rs", "names.rs"].iter().map(|f| storage.join(f)).collect();
    for dir in ["format", "blob", "log", "sst", "manifest", "merge"] {
        sources(&storage.join(dir), &mut files);
    }
    let forbidden = [
        "tokio",
        "object_store",
        "SystemTime",
        "Instant",
        "getrandom",
        "std::fs",
        "std::net",
        "std::env",
        "async fn",
        "std::thread",
        "println!",
    ];
    for file in files.iter().filter(|f| !f.ends_with("tests.rs")) {
        let code = code(file);
        for word in forbidden {
            assert!(!code.contains(word), "{} names {word}", file.display());
        }
    }
}

/// The features of what ships, by cargo's own word.
#[test]
fn what_ships_breaks_no_rule_on_purpose() {
    let broken = |package: &str, features: &[&str]| {
        let mut args = vec!["tree", "--locked", "--offline", "-p", package, "-e", "normal,features"];
        args.extend(features);
        cargo(&args).contains("sabotage")
    };
    assert!(broken("simulation", &[]), "this test looks for the wrong word");
    for package in ROLES.iter().chain(&["isle"]) {
        assert!(!broken(package, &["--features", "aws,azure,etcd,gcp"]), "{package} ships with sabotage");
    }
    for file in ["Makefile", "deploy/Containerfile"] {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let releases: Vec<&str> = text.lines().filter(|l| l.contains("build --release")).collect();
        assert!(!releases.is_empty(), "{file} builds nothing");
        let all = releases.iter().find(|l| l.contains("--workspace"));
        assert!(all.is_none(), "{file} ships the workspace, whose features include sabotage: {all:?}");
    }
}

/// The engines' code, as far as a simulation runs it: no HTTP face, no etcd client, no local disk.
fn simulated() -> Vec<PathBuf> {
    let root = root();
    let mut files = Vec::new();
    for dir in ["common/storage", "writer-node", "reader-node", "tailer-node", "compactor-node"] {
        sources(&root.join(dir).join("src"), &mut files);
    }
    let outside = ["server", "etcd", "cloud", "file"];
    files.retain(|f| !f.iter().any(|part| outside.iter().any(|o| part == *o)));
    files.retain(|f| !f.ends_with("object/file.rs") && !f.ends_with("src/main.rs"));
    files
}

/// A simulation repeats a run byte for byte: nothing in the engines may hang on chance that no seed reaches, on threads
/// or on the machine's clock.
#[test]
fn the_engines_are_deterministic() {
    let files = simulated();
    assert!(files.len() > 100);
    let mut selects = 0;
    for file in files {
        let code = code(&file);
        let mut rest = code.as_str();
        while let Some(at) = rest.find("select! {") {
            rest = &rest[at + "select! {".len()..];
            selects += 1;
            let why =
                "tokio draws the order of branches by chance: say `biased;`, rate-limited branches first";
            assert!(rest.trim_start().starts_with("biased;"), "{}: {why}", file.display());
        }
        for (word, why) in [
            ("sync::watch", "wakes in random order: use isle_storage::watch"),
            ("std::time::Instant", "is not the simulated clock: use tokio::time::Instant"),
            ("std::thread", "is beyond the simulation: use Environment::offload"),
        ] {
            assert!(!code.contains(word), "{} names {word}, which {why}", file.display());
        }
        let home = file.ends_with("environment.rs");
        for word in ["spawn_blocking", "SystemTime::now"] {
            assert!(home || !code.contains(word), "{} names {word}: use the Environment", file.display());
        }
    }
    assert!(selects > 20, "this test looks for the wrong word");
}

#[test]
fn mains_are_thin() {
    for role in ROLES.iter().chain(&["cli"]) {
        let lines = std::fs::read_to_string(root().join(role).join("src/main.rs")).unwrap().lines().count();
        assert!(lines <= 60, "{role}/src/main.rs has {lines} lines: move them to the library");
    }
}
