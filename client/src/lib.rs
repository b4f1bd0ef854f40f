//! Clients of the inner services: lease and location caches, both bindings
