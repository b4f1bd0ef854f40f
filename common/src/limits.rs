//! Every limit of Haystore, with its unit. Nothing is unbounded; what bounds it stands here.

use std::time::Duration;

/// One KiB, in bytes.
pub const KIB: usize = 1 << 10;
/// One MiB, in bytes.
pub const MIB: usize = 1 << 20;
/// One GiB, in bytes.
pub const GIB: u64 = 1 << 30;

// ---- contents and files ----

/// The default size of a chunk, and the largest a needle may hold.
pub const CHUNK_BYTES_MAX: usize = 8 * MIB;
/// The largest file: 1,048,576 chunks of 8 MiB.
pub const FILE_BYTES_MAX: u64 = 8 << 40;
/// The most chunks a file may have.
pub const FILE_CHUNKS_MAX: u32 = 1 << 20;
/// Children of one manifest node: 1,024 × 1,024 chunks of 8 MiB are 8 TiB in two levels.
pub const MANIFEST_FANOUT: usize = 1024;
/// Chunks in one `refs` row, and in one `AddReferences` command.
pub const REFS_PER_ROW_MAX: usize = 64;

// ---- paths and attributes ----

/// Bytes of a whole path.
pub const PATH_BYTES_MAX: usize = 1024;
/// Bytes of one path segment.
pub const SEGMENT_BYTES_MAX: usize = 255;
/// Segments of a path.
pub const PATH_DEPTH_MAX: usize = 128;
/// Bytes of user metadata of one entry, names and values together.
pub const USER_METADATA_BYTES_MAX: usize = 8 * KIB;
/// Pairs of user metadata of one entry.
pub const USER_METADATA_PAIRS_MAX: usize = 64;
/// Bytes of a content type.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;
/// Entries in one page of a listing, at most.
pub const LIST_PAGE_MAX: usize = 10_000;
/// Entries in one page of a listing, unless asked otherwise.
pub const LIST_PAGE_DEFAULT: usize = 1000;
/// Entries removed by one recursive delete command.
pub const DELETE_BATCH_MAX: usize = 500;

// ---- HTTP ----

/// Bytes of all request headers together.
pub const HTTP_HEADER_BYTES_MAX: usize = 64 * KIB;
/// Request headers.
pub const HTTP_HEADERS_MAX: usize = 100;
/// Connections of one gateway.
pub const HTTP_CONNECTIONS_MAX: usize = 10_000;
/// Requests in work in one gateway; further ones are answered 503.
pub const HTTP_REQUESTS_MAX: usize = 2_048;
/// Bytes of a JSON body.
pub const HTTP_JSON_BYTES_MAX: usize = 64 * KIB;
/// A header block must arrive within this time.
pub const HTTP_HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// A body up to this size needs no chunk slot.
pub const SMALL_BODY_BYTES_MAX: usize = 64 * KIB;
/// Memory of all chunk slots of a gateway.
pub const CHUNK_BUDGET_BYTES: usize = 128 * MIB;
/// Chunks of one upload in flight at once.
pub const UPLOAD_CHUNKS_IN_FLIGHT: usize = 4;
/// Bytes that one download prefetches.
pub const DOWNLOAD_PREFETCH_BYTES: usize = 2 * MIB;
/// A body that holds a chunk slot loses it below this rate …
pub const BODY_BYTES_PER_S_MIN: u64 = 4 * KIB as u64;
/// … over this window.
pub const BODY_RATE_WINDOW: Duration = Duration::from_secs(30);
/// How long a client's `Idempotency-Key` is remembered.
pub const IDEMPOTENCY_KEPT: Duration = Duration::from_secs(600);
/// Bytes of an `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
/// Bytes of a bearer token.
pub const TOKEN_BYTES_MAX: usize = 512;
/// How long a graceful shutdown waits for what is in flight.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);

// ---- inner calls ----

/// Bytes of one inner message.
pub const RPC_MESSAGE_BYTES_MAX: usize = 4 * MIB;
/// Bytes of payload in one message of a bulk stream.
pub const RPC_BULK_PART_BYTES: usize = MIB;
/// Inner calls of one service in work at once; further ones are refused as overloaded.
pub const RPC_CALLS_MAX: usize = 8_192;
/// The deadline of a small inner call, unless the caller names one.
pub const RPC_TIMEOUT: Duration = Duration::from_secs(10);
/// The deadline of a bulk stream.
pub const RPC_BULK_TIMEOUT: Duration = Duration::from_secs(300);
/// Messages waiting in an inner stream.
pub const RPC_STREAM_DEPTH: usize = 4;
/// Items of one batched call.
pub const RPC_BATCH_ITEMS_MAX: usize = 512;
/// How long a role's credential is good.
pub const CREDENTIAL_TTL: Duration = Duration::from_secs(300);

// ---- consensus ----

/// Bytes of commands in one proposal.
pub const PROPOSAL_BYTES_MAX: usize = MIB;
/// Commands in one proposal.
pub const PROPOSAL_COMMANDS_MAX: usize = 1024;
/// Commands waiting for a proposal; further ones are refused as overloaded.
pub const PROPOSALS_WAITING_MAX: usize = 8_192;
/// Bytes of one log segment.
pub const LOG_SEGMENT_BYTES: u64 = 64 * MIB as u64;
/// Bytes of one log record.
pub const LOG_RECORD_BYTES_MAX: usize = 4 * MIB;
/// Entries between two snapshots of the state.
pub const SNAPSHOT_EVERY_ENTRIES: u64 = 20_000;
/// Bytes of log between two snapshots of the state, whichever comes first.
pub const SNAPSHOT_EVERY_LOG_BYTES: u64 = 512 * MIB as u64;
/// Entries kept in the log below a snapshot, for members that lag a little.
pub const LOG_ENTRIES_KEPT: u64 = 1_000;
/// Bytes of the newest log entries that are kept in memory.
pub const LOG_CACHE_BYTES: usize = 16 * MIB;
/// Bytes of log entries sent to another member in one message.
pub const LOG_ENTRIES_SENT_BYTES: usize = 2 * MIB;
/// Bytes of the first log segment; each further one is four times as large, up to [`LOG_SEGMENT_BYTES`].
pub const LOG_SEGMENT_BYTES_FIRST: u64 = MIB as u64;
/// Emptied log segments that wait to be used again.
pub const LOG_SEGMENTS_SPARE: usize = 2;
/// Bytes of one command.
pub const COMMAND_BYTES_MAX: usize = 2 * MIB;
/// Reads waiting for one confirmation of leadership; further ones are refused as overloaded.
pub const READS_WAITING_MAX: usize = 8_192;
/// With durability `async` the log is synced this often.
pub const LOG_ASYNC_SYNC_EVERY: Duration = Duration::from_secs(1);

// ---- filer ----

/// Ingest sessions last at most this long, in log time.
pub const SESSION_TTL: Duration = Duration::from_secs(24 * 3600);
/// Answers kept for each session.
pub const SESSION_WINDOW: u64 = 4_096;
/// Sessions granted by one call.
pub const SESSIONS_PER_GRANT_MAX: u32 = 16;
/// Ingest sessions alive at once.
pub const SESSIONS_MAX: u64 = 4_096;
/// At that limit a session may be ended in favour of a new one if no command came in it for so long (log time).
pub const SESSION_IDLE_MIN: Duration = Duration::from_secs(3600);
/// An unpublished manifest is abandoned after this long without a batch.
pub const MANIFEST_TTL: Duration = Duration::from_secs(24 * 3600);
/// References dropped by one drain command.
pub const DRAIN_BATCH_MAX: usize = 1_024;
/// The log time may go ahead by at most this much in one tick.
pub const LOG_TIME_JUMP_MAX: Duration = Duration::from_secs(60);
/// While the log time catches up with the clock, lives are reckoned from a moment at most so far ahead of it.
pub const LOG_TIME_LEAD_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Log time ticks this often when nothing else does.
pub const LOG_TIME_TICK: Duration = Duration::from_secs(10);

// ---- volumes ----

/// The largest volume: 2^32 offsets of 8 bytes.
pub const VOLUME_BYTES_MAX: u64 = 32 * GIB;
/// Bytes zeroed ahead in a volume of small contents.
pub const ZERO_AHEAD_BYTES: u64 = 64 * MIB as u64;
/// Contents above this go to volumes of their own, which grow.
pub const SMALL_CONTENT_BYTES_MAX: usize = 256 * KIB;
/// Bytes of data of one needle: a chunk, and what a codec or a cipher adds to one.
pub const NEEDLE_BYTES_MAX: usize = CHUNK_BYTES_MAX + 64 * KIB;
/// Bytes of one group-committed append.
pub const APPEND_BATCH_BYTES_MAX: usize = 16 * MIB;
/// Appends waiting for one volume.
pub const APPENDS_WAITING_MAX: usize = 1_024;
/// Bytes of appends waiting for one volume.
pub const APPENDS_WAITING_BYTES_MAX: usize = 64 * MIB;
/// Bytes that one step of zeroing ahead dirties: a sync of an append at the same time waits for no more than these.
pub const ZERO_STEP_BYTES: u64 = 2 * MIB as u64;
/// Bytes that the append streams of one volume server hold at once; further ones wait.
pub const APPEND_STREAMS_BYTES_MAX: usize = 64 * MIB;
/// Bytes of whole needles that the read streams of one volume server hold at once; further ones read in parts.
pub const READ_STREAMS_BYTES_MAX: usize = 64 * MIB;
/// Bytes of needles and answers that the batched reads of one volume server hold at once; further ones wait.
pub const READ_BATCHES_BYTES_MAX: usize = 64 * MIB;
/// Bytes of one part of a read stream that holds no needle in memory.
pub const READ_STREAM_PART_BYTES: usize = 64 * KIB;
/// Bytes in which a needle is verified of which only a part is wanted in memory.
pub const READ_SWEEP_BYTES: usize = 256 * KIB;
/// How often a volume of durability async is synced.
pub const ASYNC_SYNC_EVERY: Duration = Duration::from_secs(1);
/// Bytes of tail that are replayed at open before a checkpoint is written anew.
pub const CHECKPOINT_EVERY_BYTES: u64 = 256 * MIB as u64;
/// A tail is so many times as long as the checkpoint that is written for it, but at most so many times the least tail.
pub const CHECKPOINT_TAIL_FACTOR: u64 = 4;
/// Active volumes of one class on one disk.
pub const ACTIVE_VOLUMES_PER_CLASS: usize = 2;
/// A volume is full for new leases above this share of its size, in percent.
pub const VOLUME_FULL_PERCENT: u64 = 95;
/// Threads that do blocking reads of one volume server.
pub const BLOCKING_READS_MAX: usize = 64;

// ---- free space ----

/// Below this much free space writes are refused with 507, so that the log and RocksDB never meet ENOSPC.
pub const FREE_SPACE_RESERVE_BYTES: u64 = GIB;
/// Free space is looked at this often.
pub const FREE_SPACE_CHECK: Duration = Duration::from_millis(500);

// ---- master ----

/// Heartbeats are sent this often.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
/// A server that was not heard of for this long is dead.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a write lease is good.
pub const WRITE_LEASE_TTL: Duration = Duration::from_secs(60);
/// Volumes in one write lease.
pub const WRITE_LEASE_VOLUMES_MAX: usize = 8;
/// Volumes reported in one heartbeat message.
pub const HEARTBEAT_VOLUMES_MAX: usize = 4_096;
/// An active volume above this share of its size, in percent, gets a successor while it still takes appends.
pub const VOLUME_GROW_PERCENT: u64 = 85;
/// Active volumes of one class on one disk at most, those included that nobody can write to.
pub const ACTIVE_VOLUMES_PER_CLASS_MAX: usize = 8;
/// A node needs this much room above the reserve for another volume.
pub const VOLUME_ROOM_BYTES: u64 = 256 * MIB as u64;
/// A command to a volume server that was not followed is sent again after this long.
pub const HEARTBEAT_COMMAND_AGAIN: Duration = Duration::from_secs(5);
/// Commands waiting for one volume server.
pub const HEARTBEAT_COMMANDS_WAITING_MAX: usize = 256;
/// A request for a write lease waits this long for volumes that are being made.
pub const LEASE_GRANT_WAIT: Duration = Duration::from_secs(2);
/// Nodes in the registry.
pub const NODES_MAX: usize = 4_096;
/// Volumes in one page of the map.
pub const VOLUME_MAP_PAGE_MAX: usize = 1_000;
/// Bytes of a node's address, rack, zone or tier.
pub const NODE_TEXT_BYTES_MAX: usize = 255;
/// Volumes in the map.
pub const VOLUMES_MAX: usize = 1 << 20;

// ---- files ----

/// The number of open files that a server asks the kernel for.
pub const OPEN_FILES_WANTED: u64 = 65_536;

// ---- connections between processes ----

/// Bytes that an inner message may have beyond its payload: ids, paths, texts.
pub const RPC_ENVELOPE_BYTES: usize = 256 * KIB;
/// A client waits this much longer than the server's own deadline before it gives a silent server up.
pub const RPC_CLIENT_GRACE: Duration = Duration::from_secs(2);
/// A connection between processes must be there within this time.
pub const RPC_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent connection is asked this often whether it lives, and must answer as soon.
pub const RPC_KEEPALIVE: Duration = Duration::from_secs(10);
/// Bytes under way on one HTTP/2 stream before the receiver must have taken some.
pub const RPC_STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// Bytes under way on one HTTP/2 connection.
pub const RPC_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Verified tokens that a verifier remembers.
pub const VERIFIED_TOKENS_MAX: usize = 1_024;

// ---- gateway buffers ----

/// Of the chunk budget, the share of bodies that have not outgrown [`SMALL_BODY_BYTES_MAX`] yet, in percent.
pub const CHUNK_BUDGET_SMALL_PERCENT: usize = 25;
/// Of the chunk budget, the share that larger bodies take as they arrive, without a slot, in percent; the rest is slots.
pub const CHUNK_BUDGET_OPEN_PERCENT: usize = 25;
/// When buffers run short, a body that nothing came from for this long may lose its buffer.
pub const BODY_PRESSURE_IDLE: Duration = Duration::from_secs(1);
/// When slots run short, a body that nothing came from for this long gives its slot back and keeps its bytes.
pub const BODY_PARK_IDLE: Duration = Duration::from_millis(10);
/// Bytes that all downloads read ahead together; one that waits too long goes on with [`DOWNLOAD_PIECE_BYTES`].
pub const DOWNLOAD_BUDGET_BYTES: usize = 32 * MIB;
/// A piece that every download may hold, whatever others hold. What is no longer than this is read in one piece.
pub const DOWNLOAD_PIECE_BYTES: usize = 64 * KIB;
/// A client that takes no byte of an answer for this long is cut off.
pub const HTTP_WRITE_STALL: Duration = Duration::from_secs(300);
/// Bytes of a refused body that are read and dropped, so that the client sees the answer.
pub const DRAINED_BODY_BYTES_MAX: usize = 8 * MIB;
/// How long a refused body is read for.
pub const DRAINED_BODY_TIME: Duration = Duration::from_secs(2);
/// HTTP/2 streams of one connection.
pub const HTTP2_STREAMS_MAX: u32 = 64;
/// Bytes of a body that an HTTP/2 client may send ahead on one stream.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 64 * KIB as u32;

// ---- filer, its queries and background ----

/// Rows forgotten by one expire command.
pub const EXPIRE_BATCH_MAX: usize = 1_024;
/// Bytes of entries in one page of a listing, whatever its limit: a page fits an inner message.
pub const LIST_PAGE_BYTES_MAX: usize = 2 * MIB;
/// Pages of listings above this many entries are made on the blocking pool.
pub const LIST_PAGE_INLINE_MAX: usize = 100;
/// Tenants in one status report.
pub const TENANTS_REPORTED_MAX: usize = 1_000;
/// Threads that do blocking reads of the metadata.
pub const METADATA_READS_MAX: usize = 16;
/// Bytes of RocksDB's memtables: so many of this size at most.
pub const MEMTABLE_BYTES: usize = 10 * MIB;
/// Memtables, the one that is being written included.
pub const MEMTABLES_MAX: i32 = 3;
/// Rows that the metadata's writer keeps in its own memory.
pub const HOT_ROWS_MAX: usize = 16 * 1_024;

// ---- clients of the inner services ----

/// Volume servers that one client knows.
pub const PEERS_MAX: usize = 4_096;
/// Appends up to this many bytes go as one message, larger ones as a stream.
pub const APPEND_UNARY_BYTES_MAX: usize = MIB;
/// Volumes whose places a client remembers; beyond it starts anew.
pub const LOCATIONS_CACHED_MAX: usize = 65_536;
/// Volumes whose places are fetched by one call.
pub const LOCATIONS_PER_FETCH: u32 = 256;
/// A volume that could not be written to is not asked for again for this long.
pub const VOLUME_AVOIDED: Duration = Duration::from_secs(30);
/// Volumes that are avoided at once.
pub const VOLUMES_AVOIDED_MAX: usize = 64;
/// A writer waits this long for a first lease.
pub const LEASE_WAIT: Duration = Duration::from_secs(5);
/// Ingest sessions that one client works with at a time.
pub const SESSIONS_PER_CLIENT: usize = 4;

// ---- gateway, against those who hold on to things ----

/// Uploads whose bodies are being received, at once; further ones are answered 503.
pub const HTTP_BODIES_MAX: usize = 4_096;
/// A connection without requests is closed after this long.
pub const HTTP_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A body waits this long for room in the buffers before it is answered 503.
pub const BODY_ROOM_WAIT: Duration = Duration::from_secs(60);
/// Bytes of heads that are not complete yet, of all connections; beyond it only short heads are read on.
pub const HTTP_HEADS_BYTES_MAX: usize = 32 * MIB;
/// Bytes of a head that a connection may have whatever the others hold.
pub const HTTP_HEAD_SHORT_BYTES: usize = 4 * KIB;
/// When buffers run short, a body below this rate …
pub const BODY_PRESSURE_BYTES_PER_S: u64 = 64 * KIB as u64;
/// … over this window may lose its buffer.
pub const BODY_PRESSURE_WINDOW: Duration = Duration::from_secs(5);
/// A call goes on from member to member of a group for this long before its failure is told.
pub const GROUP_PATIENCE: Duration = Duration::from_secs(8);
/// A member that says nothing for this long is passed over where there are others.
pub const GROUP_TRY: Duration = Duration::from_secs(3);
/// How long a role that stops waits for calls in flight; streams that never end are cut then.
pub const ROLE_STOP_GRACE: Duration = Duration::from_secs(5);
/// Connections at once for health and metrics of a role without HTTP of its own.
pub const OPERATIONS_CONNECTIONS_MAX: usize = 16;

// ---- gateway, bodies set aside ----

/// Bytes of half-received chunks that one gateway keeps in files while others need the memory.
pub const ASIDE_BYTES_MAX: usize = 1 << 30;
/// Half-received chunks that are written to files at once.
pub const ASIDE_WRITES_MAX: usize = 4;
/// A buffer below this many bytes is not worth a file while there are larger ones.
pub const ASIDE_WORTH_BYTES: usize = 8 * KIB;
/// The first buffer of a body after it was set aside: one that stalls again soon holds no more than this.
pub const ASIDE_TAIL_BYTES: usize = 4 * KIB;
/// Nothing is set aside when less than this would be left above the free-space reserve.
pub const ASIDE_SPARE_BYTES: u64 = 64 * MIB as u64;
/// After a buffer could not be set aside, none is tried for this long.
pub const ASIDE_PAUSE: Duration = Duration::from_secs(1);

// ---- consensus, between members ----

/// Members of one group, learners included.
pub const RAFT_MEMBERS_MAX: usize = 16;
/// Peers in a member's static list.
pub const RAFT_PEERS_MAX: usize = 16;
/// A command that no majority has taken after this long is given up: whether it is done is not known.
pub const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(10);
/// A member that has lost the leadership waits this long for what becomes of its last proposal.
pub const PROPOSAL_LOST_GRACE: Duration = Duration::from_secs(1);
/// A read that no majority has confirmed after this long is given up.
pub const READ_CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// The first pause before a member that could not be reached is tried again; each further one is twice as long.
pub const RAFT_BACKOFF_FIRST: Duration = Duration::from_millis(25);
/// No such pause is longer.
pub const RAFT_BACKOFF_MAX: Duration = Duration::from_millis(400);
/// A new member looks at its peers this often until it belongs to a group.
pub const RAFT_FORMATION_EVERY: Duration = Duration::from_millis(250);
/// A new member's question to a peer is given up after this long.
pub const RAFT_FORMATION_TIMEOUT: Duration = Duration::from_secs(2);
/// After so many calls in a row without an answer the connection is made anew.
pub const RAFT_REDIAL_AFTER: u32 = 5;
/// A snapshot's transfer is broken off when nothing of it moved for this long.
pub const RAFT_SNAPSHOT_STALL: Duration = Duration::from_secs(30);
/// A receiver that installs a snapshot says so this often.
pub const RAFT_SNAPSHOT_ALIVE: Duration = Duration::from_secs(1);
/// Messages with entries that a member works on or has waiting; each is up to [`LOG_ENTRIES_SENT_BYTES`]. Further ones are
/// refused: a member whose disk hangs must not gather in memory what its leader sends again and again.
pub const RAFT_APPENDS_WAITING_MAX: usize = 2;
/// Other messages that a member works on or has waiting: heartbeats and requests for a vote.
pub const RAFT_CALLS_WAITING_MAX: usize = 64;
/// Files of one snapshot.
pub const RAFT_SNAPSHOT_FILES_MAX: u64 = 1 << 20;
/// Bytes of a snapshot file's name, with the directories below the snapshot's own.
pub const RAFT_SNAPSHOT_NAME_BYTES_MAX: usize = 1024;
/// A learner may become a voter when it lacks no more entries than this.
pub const RAFT_PROMOTE_LAG_MAX: u64 = 1_000;
/// A change of members that is not done after this long is given up: whether it is done is not known.
pub const RAFT_CHANGE_TIMEOUT: Duration = Duration::from_secs(8);
/// With a full disk the log looks for room this often.
pub const LOG_ROOM_CHECK: Duration = Duration::from_millis(200);
/// A snapshot for which the disk has no room is made again after this long.
pub const SNAPSHOT_ROOM_CHECK: Duration = Duration::from_secs(2);

// ---- replication ----

/// Servers that hold one volume.
pub const REPLICAS_MAX: usize = 16;
/// A replica that has not synced a batch of small needles within this time has failed.
pub const REPLICATE_TIMEOUT: Duration = Duration::from_secs(4);
/// A large needle has [`REPLICATE_TIMEOUT`] and the time that it takes at this rate, in bytes a second.
pub const REPLICATE_BYTES_PER_S_MIN: u64 = MIB as u64;
/// A writer gives a volume server up that has not answered a small append within this time: longer than the server
/// itself waits for its replicas.
pub const APPEND_TIMEOUT: Duration = Duration::from_secs(9);
/// The server may wait for a call that is under way to a replica, and then for its own.
const _: () = assert!(APPEND_TIMEOUT.as_millis() > 2 * REPLICATE_TIMEOUT.as_millis());
/// The same for a large needle.
pub const APPEND_BULK_TIMEOUT: Duration = Duration::from_secs(20);
/// A reader asks the next replica when one has not answered, or has sent nothing more, for this long.
pub const READ_REPLICA_TIMEOUT: Duration = Duration::from_secs(3);
/// A volume server that failed a call is asked last for this long.
pub const ADDRESS_AVOIDED: Duration = Duration::from_secs(10);
/// A volume server that failed as a replica gets no new volumes for this long.
pub const NODE_SUSPECTED: Duration = Duration::from_secs(30);
/// One that fails again and again, each time for twice as long, but no longer than this.
pub const NODE_SUSPECTED_MAX: Duration = Duration::from_secs(30 * 60);
/// A volume server with so many volumes that failed there gets no new ones until somebody has looked.
pub const NODE_FAILED_VOLUMES_MAX: usize = 16;
/// A volume server whose stream ended counts as gone for new volumes after this long; and one that speaks keeps its id
/// against another process with the same one until it was silent for this long.
pub const HEARTBEAT_GONE: Duration = Duration::from_secs(3);
/// Names of needles in one page.
pub const LIST_NEEDLES_PAGE_MAX: usize = 8_192;
/// Volumes that one server fills at once; further ones wait for their masters to ask again.
pub const FILLS_AT_ONCE: usize = 1;
/// Bytes that a server copies in one second to fill volumes.
pub const FILL_BYTES_PER_S: u64 = 64 * MIB as u64;
/// A fill that failed is begun again after this long at most; the pause doubles from [`HEARTBEAT_COMMAND_AGAIN`] on.
pub const FILL_AGAIN_MAX: Duration = Duration::from_secs(60);
/// After so many failures in a row a repair that is asked for again looks for another server, where there is one; and what no
/// source could give so often counts as lost.
pub const FILL_FAILURES_MAX: u32 = 3;
/// Needles that no source could give and that a fill remembers by name.
pub const FILL_UNREAD_MAX: usize = 10_000;
/// A volume that a living server could not create within this time is given up.
pub const VOLUME_CREATE_PATIENCE: Duration = Duration::from_secs(600);
/// By so much the clocks of two servers may differ: a credential is taken for this much longer than it says.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(2 * 3600);

// ---- gRPC ports ----

/// Connections of one gRPC port; further ones wait in the kernel's queue.
pub const RPC_CONNECTIONS_MAX: usize = 4_096;
/// A new connection must say something within this time.
pub const RPC_FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(10);

// ---- silent servers ----

/// A volume that has not answered a small append for this long is not waited for alone …
pub const HEDGE_AFTER: Duration = Duration::from_millis(700);
/// … and a large one may take as long as it does at this rate, in bytes a second, besides.
pub const HEDGE_BYTES_PER_S: u64 = 8 * MIB as u64;
/// Where none could be had, another volume is looked for this often.
pub const HEDGE_AGAIN: Duration = Duration::from_millis(50);
/// Further volumes that one append is tried on at the same time.
pub const HEDGES_PER_APPEND_MAX: usize = 2;
/// A replica that has not answered a small read for this long is not waited for alone.
pub const READ_HEDGE_AFTER: Duration = Duration::from_millis(500);
/// A server that a small read did not wait for is asked last for this long.
pub const READ_HEDGE_AVOIDED: Duration = Duration::from_secs(2);
/// One call in so many may be doubled in the long run.
pub const HEDGE_PER_CALLS: u32 = 10;
/// Doubled calls that are saved up while none is needed.
pub const HEDGES_SAVED_MAX: u32 = 64;

// ---- places of volumes, and who leads ----

/// What is known of a volume's places for longer than this is asked for anew, beside the reads: servers die and come back.
pub const LOCATIONS_KEPT: Duration = Duration::from_secs(30);
/// A reader waits this long for the masters to confirm a place; then any master's map has to do as it stands …
pub const LOCATE_PATIENCE: Duration = Duration::from_secs(1);
/// … and nobody waits for such a confirmation again for this long.
pub const LOCATE_CONFIRM_AGAIN: Duration = Duration::from_secs(5);
/// A read that fails for the moment is tried again for this long.
pub const READ_PATIENCE: Duration = Duration::from_secs(8);
/// Leaders that stand in no list of this process and are remembered.
pub const GROUP_LEARNED_MAX: usize = 4;

// ---- growth on servers in doubt ----

/// Volumes made on servers that failed, of which a leader remembers it.
pub const DOUBTFUL_VOLUMES_MAX: usize = 4_096;
/// When such a volume has failed, the next are made no sooner than this after it …
pub const GROWTH_PAUSE: Duration = Duration::from_secs(1);
/// … or twice as late each further time, but no later than this.
pub const GROWTH_PAUSE_MAX: Duration = Duration::from_secs(5 * 60);
/// … and half as late again for each such time that none was needed, but for no less than this.
pub const GROWTH_CALM: Duration = Duration::from_secs(60);
/// How long a count of the volumes that lack copies is good.
pub const SURVEY_KEPT: Duration = Duration::from_secs(5);
/// Volumes named in the status of a cluster.
pub const STATUS_VOLUMES_MAX: usize = 16;
