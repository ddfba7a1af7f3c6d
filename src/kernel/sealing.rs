//! Envelope encryption of what the store keeps: AES-256-GCM, one data key a record, wrapped by the sealing key;
//! associated data binds name and version, so that records cannot be swapped.
