//! The configuration. `config/settings.rs` has the table that everything else about it derives from;
//! [`Config::load`] reads it.

mod mistake;
mod service_link;

mod given;

mod guard;
mod upstream_url;
mod value;

mod asset;
mod listen;
mod wallets;

mod settings;

mod spending;

mod whole;

mod load;

pub use asset::AssetConfig;
pub use guard::HostName;
pub use listen::ListenAddress;
pub(crate) use mistake::nearest;
pub use mistake::{InvalidSetting, Mistakes};
pub use settings::{Config, LogConfig, SocketConfig, SpendingConfig, TlsConfig, UpstreamConfig};
pub use upstream_url::UpstreamUrl;
pub use value::{ClientsAre, LogFormat};
pub use wallets::WalletConfig;
