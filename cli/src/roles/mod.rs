//! The roles as processes of their own: `hay master`, `hay volume-server`, `hay filer`, `hay gateway`. They speak gRPC
//! to each other; each role's directory looks as it does below the directory of `hay server`.

mod connection;
mod filer;
mod flags;
mod gateway;
mod listen;
mod master;
mod operations;
mod settings;
mod start;
mod volume_server;

pub use filer::FilerArgs;
pub use gateway::GatewayArgs;
pub use master::MasterArgs;
pub use settings::{SettingsError, with_settings};
pub use volume_server::VolumeServerArgs;

pub use filer::run as run_filer;
pub use gateway::run as run_gateway;
pub use master::run as run_master;
pub use volume_server::run as run_volume_server;
