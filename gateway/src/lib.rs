//! The gateway: streaming HTTP in front of the inner services
