//! What holds for every service on both bindings. One function for each service runs the same checks on a direct call
//! and over real connections; what all services share is in [`shared`].

mod control;
mod filer;
mod master;
mod shared;
mod stage;
mod volume;
