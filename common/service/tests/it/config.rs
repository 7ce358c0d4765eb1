//! Settings: precedence of the layers, errors that help, what may be printed.

use std::path::PathBuf;
use std::time::Duration;

use isle_service::config::{CommonArgs, ConfigError, Layers, LogFormat, Settings, check_database_name};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Writer {
    linger_ms: u64,
    ratio: f64,
    modes: Vec<String>,
    eager: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_dir: Option<PathBuf>,
    api_token: String,
    backoff_seconds: (f64, f64),
    inner: Inner,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Inner {
    uploads_in_flight: u8,
}

impl Default for Writer {
    fn default() -> Self {
        let api_token = "hunter2".to_owned();
        let modes = vec!["bucket".to_owned()];
        Self {
            linger_ms: 5,
            ratio: 0.5,
            modes,
            eager: false,
            cache_dir: None,
            api_token,
            backoff_seconds: (0.2, 30.0),
            inner: Inner::default(),
        }
    }
}

fn load(file: &str, env: &[(&str, &str)], args: &CommonArgs) -> Result<Settings<Writer>, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("isle.toml");
    std::fs::write(&path, file).unwrap();
    let args = CommonArgs { config: Some(path), ..args.clone() };
    Settings::load(&args, "writer", env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
}

fn error(file: &str, env: &[(&str, &str)]) -> String {
    load(file, env, &CommonArgs::default()).unwrap_err().to_string()
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let file = "[store]\nurl = 'file:///file'\n[writer]\nlinger_ms = 10\n[log]\nlevel = 'warn'";
    let args = CommonArgs { store: Some("file:///flag".into()), ..CommonArgs::default() };
    let env = [("ISLE__STORE__URL", "file:///env"), ("ISLE__WRITER__LINGER_MS", "20"), ("PATH", "/bin")];
    let settings = load(file, &env, &args).unwrap();
    assert_eq!(settings.store.url, "file:///flag");
    assert_eq!(settings.role.linger_ms, 20);
    assert_eq!(settings.log.level, "warn");
    assert_eq!(settings.store.database, "default");
    assert_eq!(load(file, &env, &CommonArgs::default()).unwrap().store.url, "file:///env");
    assert_eq!(load(file, &[], &CommonArgs::default()).unwrap().role.linger_ms, 10);
    assert_eq!(load("", &[], &CommonArgs::default()).unwrap(), Settings::default());
}

#[test]
fn text_from_the_environment_becomes_what_its_setting_is() {
    let env = [
        ("ISLE__WRITER__RATIO", "0.25"),
        ("ISLE__WRITER__MODES", "bucket, memory"),
        ("ISLE__WRITER__EAGER", "true"),
        ("ISLE__WRITER__BACKOFF_SECONDS", "0.5, 10"),
        ("ISLE__WRITER__CACHE_DIR", "/var/cache"),
        ("ISLE__WRITER__INNER__UPLOADS_IN_FLIGHT", "7"),
        ("ISLE__SERVER__SHUTDOWN_TIMEOUT", "1m 30s"),
        ("ISLE__SERVER__HEADER_TIMEOUT", "7"),
        ("ISLE__SERVER__LISTEN", "127.0.0.1:9"),
        ("ISLE__LOG__FORMAT", "json"),
        ("ISLE__COORDINATION__USERNAME", ""),
    ];
    let settings = load("", &env, &CommonArgs::default()).unwrap();
    assert_eq!(settings.role.modes, ["bucket", "memory"]);
    assert_eq!((settings.role.ratio, settings.role.eager), (0.25, true));
    assert_eq!(settings.role.backoff_seconds, (0.5, 10.0));
    assert_eq!(settings.role.cache_dir, Some("/var/cache".into()));
    assert_eq!(settings.role.inner.uploads_in_flight, 7);
    assert_eq!(settings.server.shutdown_timeout, Duration::from_secs(90));
    assert_eq!(settings.server.header_timeout, Duration::from_secs(7));
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(settings.coordination.username, None);
}

/// One file serves all programs: the sections of other roles are let through, whatever they hold.
#[test]
fn sections_of_other_roles_are_let_through() {
    let file = "[reader]\nanything = { goes = 1 }\n[tailer]\nx = 1\n[compactor]\n[writer]\nlinger_ms = 1";
    let env = [("ISLE__READER__WHATEVER", "1")];
    assert_eq!(load(file, &env, &CommonArgs::default()).unwrap().role.linger_ms, 1);
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() {
    let said = error("[writer]\nlinger_msec = 1", &[]);
    assert!(
        said.contains("isle.toml: writer.linger_msec: unknown setting; did you mean writer.linger_ms?"),
        "{said}"
    );
    let said = error("[writer.inner]\nuploads_in_fligth = 1", &[]);
    assert!(said.contains("did you mean writer.inner.uploads_in_flight?"), "{said}");
    let said = error("", &[("ISLE__WRITER__LINGERMS", "1")]);
    assert!(said.starts_with("environment: ISLE__WRITER__LINGERMS: unknown setting"), "{said}");
    assert!(said.ends_with("did you mean ISLE__WRITER__LINGER_MS?"), "{said}");
    let said = error("[writter]\n", &[]);
    assert!(said.contains("writter: unknown section; did you mean writer?"), "{said}");
    let said = error("[server]\nzzz = 1", &[]);
    assert!(said.contains("known are listen, advertise"), "{said}");
    let said = error("", &[("ISLE__WRITTER__LINGER_MS", "1")]);
    assert!(said.contains("ISLE__WRITTER: unknown section; did you mean writer?"), "{said}");
    for name in ["ISLE__WRITER", "ISLE__WRITER__", "ISLE__WRITER____X"] {
        assert!(error("", &[(name, "1")]).contains(name), "{name}");
    }
}

#[test]
fn a_bad_value_is_named_with_its_place() {
    for (file, expected) in [
        ("[writer]\nlinger_ms = 'ten'", "isle.toml: writer.linger_ms: "),
        ("[writer]\nlinger_ms = -1", "isle.toml: writer.linger_ms: "),
        ("[writer.inner]\nuploads_in_flight = 256", "isle.toml: writer.inner.uploads_in_flight: "),
        ("[writer]\ninner = 3", "writer.inner: expected a table of settings"),
        ("[writer]\nmodes = 'bucket'", "writer.modes: expected a list"),
        (
            "[writer]\nbackoff_seconds = [1, 2, 3]",
            "writer.backoff_seconds: expected a list of 2, found a list",
        ),
        ("[server]\nshutdown_timeout = 'soon'", "server.shutdown_timeout: \"soon\" is not a duration"),
        ("[server]\nshutdown_timeout = 0", "server.shutdown_timeout: must be above zero"),
        ("[log]\nformat = 'xml'", "log.format: unknown variant `xml`, expected `text` or `json`"),
        ("writer = 3", "writer: is a section"),
        ("[writer\n", "isle.toml: TOML parse error"),
        ("[store]\ndatabase = 'My DB'", "store.database: \"My DB\" is not a database name"),
        ("[server]\nlisten = '0.0.0.0:7301'", "server.advertise: is required"),
        ("[server]\nlisten = '[::]:7301'", "server.advertise: is required"),
        ("[server]\nlisten = 'somewhere'", "server.listen: "),
        ("[server]\nadvertise = 'host:1'", "server.advertise: "),
    ] {
        let said = error(file, &[]);
        assert!(said.contains(expected), "{file:?}: {said}");
    }
    let said = error("", &[("ISLE__WRITER__LINGER_MS", "1.5")]);
    assert_eq!(said, "environment: ISLE__WRITER__LINGER_MS: expected a whole number, found \"1.5\"");
    let args = CommonArgs { listen: Some("nowhere".into()), ..CommonArgs::default() };
    let said = load("", &[], &args).unwrap_err().to_string();
    assert!(said.starts_with("--listen: "), "{said}");
    let args = CommonArgs { config: Some("/nonexistent/isle.toml".into()), ..CommonArgs::default() };
    let said = Settings::<Writer>::load(&args, "writer", []).unwrap_err().to_string();
    assert!(said.contains("/nonexistent/isle.toml: cannot be read"), "{said}");
}

#[test]
fn a_wildcard_address_with_an_advertised_url_is_fine() {
    let file = "[server]\nlisten = '0.0.0.0:7301'\nadvertise = 'http://writer-1:7301/'";
    let settings = load(file, &[], &CommonArgs::default()).unwrap();
    let local = "0.0.0.0:7301".parse().unwrap();
    assert_eq!(settings.server.advertise_or(local), "http://writer-1:7301");
    let plain = Settings::<Writer>::default().server;
    assert_eq!(plain.listen_or(7302), "127.0.0.1:7302".parse().unwrap());
    assert_eq!(plain.advertise_or("127.0.0.1:5".parse().unwrap()), "http://127.0.0.1:5");
}

/// A certificate or a token file that is silently ignored would leave a door open.
#[test]
fn reserved_flags_are_refused() {
    let file = Some(PathBuf::from("x"));
    for args in [
        CommonArgs { tls_cert: file.clone(), ..CommonArgs::default() },
        CommonArgs { tls_key: file.clone(), ..CommonArgs::default() },
        CommonArgs { tls_client_ca: file.clone(), ..CommonArgs::default() },
        CommonArgs { auth_file: file, ..CommonArgs::default() },
    ] {
        let said = load("", &[], &args).unwrap_err().to_string();
        assert!(said.starts_with("unsupported: --"), "{said}");
    }
}

#[test]
fn printed_settings_read_back_and_hide_secrets() {
    let file = "[store]\nurl = 's3://me:pw@bucket/prefix?region=x&secret_access_key=abc'\n\
                [coordination]\npassword_file = '/run/secret'\n[writer]\nlinger_ms = 33";
    let settings = load(file, &[], &CommonArgs::default()).unwrap();
    let printed = settings.to_toml("writer").unwrap();
    assert!(
        !printed.contains("hunter2") && !printed.contains(":pw@") && !printed.contains("abc"),
        "{printed}"
    );
    assert!(printed.contains("/run/secret") && printed.contains("region=x"), "{printed}");
    let back = Layers::parse("printed", &printed).unwrap();
    let back = Settings::<Writer>::from_layers(&back, "writer").unwrap();
    assert_eq!(back.role.linger_ms, 33);
    assert_eq!(back.server, settings.server);
    assert_eq!(back.coordination, settings.coordination);
}

#[test]
fn database_names() {
    for good in ["default", "a", "a-1", &"x".repeat(63)] {
        assert!(check_database_name(good).is_ok(), "{good}");
    }
    for bad in ["", "A", "a_b", "a.b", "a/b", &"x".repeat(64)] {
        assert!(check_database_name(bad).is_err(), "{bad}");
    }
}
