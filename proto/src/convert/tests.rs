use hay_common::model::{
    Chunk, Codec, Copy, CopyState, EntryInfo, EntryKind, LeasedVolume, LocatedChunk, Location, SizeClass,
    VolumeState,
};
use proptest::prelude::*;

use super::*;

fn id<T: WireId>(bits: u128) -> T {
    T::from_wire("id", &bits.to_be_bytes()).unwrap()
}

fn located(bits: u128, location: Location, codec: u16, state: CopyState, size: u32) -> LocatedChunk {
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(&bits.to_be_bytes());
    LocatedChunk {
        number: size / 3,
        offset: u64::from(size) * 7,
        chunk: Chunk { hash: ContentHash(hash), size },
        copy: Copy { id: id(bits), location, codec: Codec(codec), stored_bytes: size, state },
    }
}

proptest! {
    #[test]
    fn located_chunks_read_back(
        bits in any::<u128>(), numbers in any::<(u32, u32, u64)>(), staged in any::<bool>(), codec in any::<u16>(),
        state in prop::sample::select(&[CopyState::Live, CopyState::Condemned, CopyState::Damaged][..]),
        size in any::<u32>(),
    ) {
        let location = if staged {
            Location::Staged { group: numbers.0, index: numbers.2, position: numbers.1 }
        } else {
            Location::Volume { volume: VolumeId(numbers.0), cookie: Cookie(numbers.1) }
        };
        let chunk = located(bits, location, codec, state, size);
        prop_assert_eq!(LocatedChunk::try_from(v1::LocatedChunk::from(chunk)).unwrap(), chunk);
    }

    #[test]
    fn entries_read_back(
        bits in any::<u128>(), path in ".{0,40}", directory in any::<bool>(), size in any::<u64>(),
        content_type in proptest::option::of(".{0,10}"),
        user_metadata in prop::collection::vec(("[a-z]{1,5}", ".{0,5}"), 0..4), chunks in any::<u32>(),
    ) {
        let entry = EntryInfo {
            id: id(bits),
            path,
            kind: if directory { EntryKind::Directory } else { EntryKind::File },
            size,
            content_hash: (!directory).then_some(ContentHash([9; 32])),
            modified_ms: size / 2,
            content_type,
            user_metadata,
            manifest: (chunks > 1).then_some(id(bits ^ 1)),
            chunk_count: chunks,
        };
        prop_assert_eq!(EntryInfo::try_from(v1::Entry::from(entry.clone())).unwrap(), entry);
    }
}

#[test]
fn leases_failures_and_enums_read_back() {
    for class in [SizeClass::Small, SizeClass::Large] {
        let leased = LeasedVolume {
            volume: VolumeId(7),
            epoch: Epoch(3),
            class,
            replicas: vec!["a:1".into(), "b:2".into()],
        };
        assert_eq!(LeasedVolume::try_from(v1::LeasedVolume::from(leased.clone())).unwrap(), leased);
    }
    for state in [VolumeState::Creating, VolumeState::Writable, VolumeState::Sealed] {
        assert_eq!(volume_state("state", v1::VolumeState::from(state).into()), Ok(state));
    }
    for code in ErrorCode::ALL {
        let failure = Failure::new(*code, "text");
        assert_eq!(Failure::from(v1::Failure::from(failure.clone())), failure);
    }
}

#[test]
fn the_error_names_the_field() {
    let whole = v1::LocatedChunk::from(located(
        1,
        Location::Volume { volume: VolumeId(1), cookie: Cookie(2) },
        0,
        CopyState::Live,
        5,
    ));
    let check = |change: &dyn Fn(&mut v1::LocatedChunk), field: &str| {
        let mut message = whole.clone();
        change(&mut message);
        let error = LocatedChunk::try_from(message).unwrap_err();
        assert!(error.to_string().contains(field), "{error} should name {field}");
    };
    check(&|m| m.chunk = None, "located_chunk.chunk");
    check(&|m| m.copy = None, "located_chunk.copy");
    check(
        &|m| m.chunk.as_mut().unwrap().hash = Bytes::from_static(b"short"),
        "chunk.hash has 5 bytes instead of 32",
    );
    check(&|m| m.copy.as_mut().unwrap().id = Bytes::new(), "copy.id has 0 bytes instead of 16");
    check(&|m| m.copy.as_mut().unwrap().location = None, "copy.location");
    check(&|m| m.copy.as_mut().unwrap().location = Some(v1::Location::default()), "location.kind");
    check(&|m| m.copy.as_mut().unwrap().codec = 70_000, "copy.codec has the unknown value 70000");
    assert_eq!(size_class("class", 0), Err(ConvertError::Unknown { field: "class", value: 0 }));
    assert_eq!(size_class("class", 99), Err(ConvertError::Unknown { field: "class", value: 99 }));
    assert_eq!(text("path", Bytes::from_static(&[0xff])), Err(ConvertError::NotUtf8 { field: "path" }));
}
