//! The flags every program has.

use std::path::PathBuf;

use super::error::ConfigError;
use super::tree::Layers;

/// Flags common to all programs; every one of them is also a setting.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct CommonArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the database lives: file:///path, s3://bucket/prefix, gs://…, az://…
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Where its head is kept: bucket, or etcd://host:2379[,host:2379][/root]
    #[arg(long, value_name = "URL")]
    pub coordination: Option<String>,
    /// Name of the database [default: default]
    #[arg(long, value_name = "NAME")]
    pub database: Option<String>,
    /// Address to listen at [default: the role's port on loopback]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// URL others are told; required with a wildcard listen address
    #[arg(long, value_name = "URL")]
    pub advertise: Option<String>,
    /// How logs are written: text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// error, warn, info, debug, trace, or directives such as info,writer_node=debug
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Check the settings and exit
    #[arg(long)]
    pub check_config: bool,
    /// Print the settings in force, secrets hidden, and exit
    #[arg(long)]
    pub print_config: bool,
    /// Certificate to serve TLS with
    #[arg(long, value_name = "FILE", hide = true)]
    pub tls_cert: Option<PathBuf>,
    /// Key of the certificate
    #[arg(long, value_name = "FILE", hide = true)]
    pub tls_key: Option<PathBuf>,
    /// Authorities that clients' certificates are checked against
    #[arg(long, value_name = "FILE", hide = true)]
    pub tls_client_ca: Option<PathBuf>,
    /// Bearer tokens and their roles
    #[arg(long, value_name = "FILE", hide = true)]
    pub auth_file: Option<PathBuf>,
}

impl CommonArgs {
    /// Lays the flags given over the other layers. Flags whose names are kept for later are refused: a certificate or a
    /// token file that is silently ignored would leave a door open.
    pub fn lay_on(&self, layers: &mut Layers) -> Result<(), ConfigError> {
        let reserved = [
            ("--tls-cert", &self.tls_cert),
            ("--tls-key", &self.tls_key),
            ("--tls-client-ca", &self.tls_client_ca),
            ("--auth-file", &self.auth_file),
        ];
        if let Some((flag, _)) = reserved.iter().find(|(_, given)| given.is_some()) {
            let message = format!(
                "unsupported: {flag} comes with a later version; this one serves plain HTTP without authentication"
            );
            return Err(ConfigError::new(message));
        }
        let flags = [
            ("--store", "store.url", &self.store),
            ("--database", "store.database", &self.database),
            ("--coordination", "coordination.url", &self.coordination),
            ("--listen", "server.listen", &self.listen),
            ("--advertise", "server.advertise", &self.advertise),
            ("--log-format", "log.format", &self.log_format),
            ("--log-level", "log.level", &self.log_level),
        ];
        for (flag, path, value) in flags {
            if let Some(value) = value {
                layers.set_flag(flag, path, value.clone());
            }
        }
        Ok(())
    }
}
