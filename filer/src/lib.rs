//! The filer: path index, manifests, contents and references
