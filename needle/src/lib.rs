//! The volume format: superblock, records, checkpoint, index, scan. Bytes and memory only, no files
