//! Every record and every request comes back from its message as it was; what is not understood is refused.

use std::fmt::Debug;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::decode::DecodeError;
use super::record::{CounterRecord, StoredRecord, StoredSession, TermRecord, decode_record, encode_record};
use crate::broker::{
    AckLevel, AppendAnswer, AppendItem, Appended, OwnerBatches, OwnerRead, PartitionBounds, TailEvent,
};
use crate::internal as pb;
use crate::meta::*;
use crate::*;

fn ids() -> impl Strategy<Value = [u8; 16]> {
    any::<[u8; 16]>()
}

fn epochs() -> impl Strategy<Value = Epoch> {
    (0..=i32::MAX as u32).prop_map(Epoch)
}

fn acting_epochs() -> impl Strategy<Value = Epoch> {
    (1..=i32::MAX as u32).prop_map(Epoch)
}

fn offsets() -> impl Strategy<Value = Offset> {
    (0..=i64::MAX as u64).prop_map(Offset)
}

fn positions() -> impl Strategy<Value = BytePosition> {
    (0..=i64::MAX as u64).prop_map(BytePosition)
}

fn files() -> impl Strategy<Value = FileId> {
    (epochs(), any::<u64>()).prop_map(|(epoch, nonce)| FileId { epoch, nonce })
}

fn partitions() -> impl Strategy<Value = TopicPartition> {
    (ids(), any::<u32>()).prop_map(|(id, number)| TopicPartition { topic: TopicId(id), partition: PartitionId(number) })
}

fn ends() -> impl Strategy<Value = SegmentEnd> {
    (offsets(), positions()).prop_map(|(offset, position)| SegmentEnd { offset, position })
}

fn owners() -> impl Strategy<Value = Owner> {
    (any::<u32>(), any::<u64>()).prop_map(|(node, run)| Owner { node: NodeId(node), incarnation: Incarnation(run) })
}

fn kinds() -> impl Strategy<Value = NodeKind> {
    prop_oneof![Just(NodeKind::Broker), Just(NodeKind::Proxy), Just(NodeKind::Controller), Just(NodeKind::Coordinator)]
}

fn topics() -> impl Strategy<Value = TopicRecord> {
    let state = prop_oneof![Just(TopicState::Active), Just(TopicState::Deleting)];
    (ids(), "[a-z.]{1,20}", any::<u32>(), btree_map("[a-z]{1,8}", ".{0,8}", 0..4), state).prop_map(
        |(id, name, partitions, config, state)| TopicRecord { id: TopicId(id), name, partitions, config, state },
    )
}

fn sessions() -> impl Strategy<Value = SessionRecord> {
    let endpoints = btree_map("[a-z]{1,8}", "[a-z0-9:]{0,20}", 0..3);
    let fields = (kinds(), any::<u32>(), any::<u64>(), "[a-z0-9:]{0,20}", endpoints);
    fields.prop_map(|(kind, node, run, address, endpoints)| SessionRecord {
        kind,
        node: NodeId(node),
        incarnation: Incarnation(run),
        address,
        endpoints,
    })
}

fn intents() -> impl Strategy<Value = Intent> {
    (any::<u32>(), any::<u64>()).prop_map(|(node, term)| Intent { node: NodeId(node), term: Term(term) })
}

fn heads() -> impl Strategy<Value = PartitionHead> {
    let chain = vec((epochs(), offsets()).prop_map(|(epoch, start)| EpochStart { epoch, start }), 0..4);
    let numbers = (any::<u64>(), any::<u64>(), epochs(), any::<bool>(), offsets(), offsets());
    (numbers, option::of(owners()), chain, option::of(files())).prop_map(|(numbers, owner, epoch_chain, open)| {
        let (version, last_nonce, epoch, recovered, log_start, sealed_end) = numbers;
        PartitionHead { version, last_nonce, epoch, owner, recovered, epoch_chain, log_start, sealed_end, open }
    })
}

fn segments() -> impl Strategy<Value = SegmentRecord> {
    let state = prop_oneof![
        Just(SegmentState::Open),
        ends().prop_map(|end| SegmentState::Sealed { end }),
        ends().prop_map(|end| SegmentState::Closed { end }),
    ];
    let places = (files(), epochs(), offsets(), positions());
    let times = (any::<i64>(), any::<i64>(), option::of(any::<i64>()));
    (places, state, option::of(positions()), times, any::<bool>()).prop_map(
        |(places, state, floor, times, compacted)| {
            let (file, epoch, base_offset, start_position) = places;
            let (created_at_ms, sealed_at_ms, max_timestamp_ms) = times;
            SegmentRecord {
                file,
                epoch,
                base_offset,
                start_position,
                state,
                floor,
                created_at_ms,
                sealed_at_ms,
                max_timestamp_ms,
                compacted,
            }
        },
    )
}

fn checkpoints() -> impl Strategy<Value = Checkpoint> {
    (epochs(), files(), positions(), offsets()).prop_map(|(epoch, file, position, offset)| Checkpoint {
        epoch,
        file,
        position,
        offset,
    })
}

fn garbage() -> impl Strategy<Value = GarbageRecord> {
    (files(), any::<i64>()).prop_map(|(file, dropped_at_ms)| GarbageRecord { file, dropped_at_ms })
}

fn command_kinds() -> impl Strategy<Value = PartitionCommandKind> {
    use PartitionCommandKind as Kind;
    prop_oneof![
        owners().prop_map(|owner| Kind::Claim { owner }),
        (acting_epochs(), files(), positions()).prop_map(|(epoch, file, floor)| Kind::RecordFloor {
            epoch,
            file,
            floor
        }),
        (acting_epochs(), option::of((files(), ends())), offsets())
            .prop_map(|(epoch, found, start)| Kind::FinishRecovery { epoch, found, start }),
        (acting_epochs(), files(), positions(), offsets(), option::of(ends())).prop_map(
            |(epoch, file, start_position, base_offset, seal)| Kind::OpenSegment {
                epoch,
                file,
                start_position,
                base_offset,
                seal
            }
        ),
        (acting_epochs(), files(), ends()).prop_map(|(epoch, file, end)| Kind::SealSegment { epoch, file, end }),
        (acting_epochs(), offsets(), files(), option::of(any::<i64>())).prop_map(
            |(epoch, base_offset, file, max_timestamp_ms)| Kind::CloseSegment {
                epoch,
                base_offset,
                file,
                max_timestamp_ms
            }
        ),
        (acting_epochs(), offsets(), offsets()).prop_map(|(epoch, log_start, drop_below)| Kind::MoveLogStart {
            epoch,
            log_start,
            drop_below
        }),
        (acting_epochs(), vec((offsets(), files()), 0..4), files(), positions(), option::of(any::<i64>())).prop_map(
            |(epoch, replaced, file, end_position, max_timestamp_ms)| Kind::ReplaceSegments {
                epoch,
                replaced,
                file,
                start_position: BytePosition(end_position.0 / 2),
                end_position,
                max_timestamp_ms
            }
        ),
        checkpoints().prop_map(|checkpoint| Kind::Checkpoint { checkpoint }),
        acting_epochs().prop_map(|epoch| Kind::Release { epoch }),
        (acting_epochs(), files()).prop_map(|(epoch, file)| Kind::ForgetGarbage { epoch, file }),
    ]
}

fn commands() -> impl Strategy<Value = PartitionCommand> {
    (partitions(), any::<u64>(), any::<i64>(), command_kinds())
        .prop_map(|(partition, nonce, now_ms, kind)| PartitionCommand { partition, nonce, now_ms, kind })
}

fn changes() -> impl Strategy<Value = WatchEvent> {
    let change = prop_oneof![
        topics().prop_map(MetaChange::Topic),
        ids().prop_map(|id| MetaChange::TopicGone(TopicId(id))),
        sessions().prop_map(MetaChange::Session),
        (kinds(), any::<u32>()).prop_map(|(kind, node)| MetaChange::SessionGone(kind, NodeId(node))),
        (partitions(), intents()).prop_map(|(partition, intent)| MetaChange::Intent(partition, intent)),
        partitions().prop_map(MetaChange::IntentGone),
        (partitions(), heads()).prop_map(|(partition, head)| MetaChange::Head(partition, head)),
        partitions().prop_map(MetaChange::HeadGone),
    ];
    prop_oneof![Just(WatchEvent::Reset), Just(WatchEvent::Synced), change.prop_map(WatchEvent::Change)]
}

fn bounds() -> impl Strategy<Value = PartitionBounds> {
    (epochs(), offsets(), offsets()).prop_map(|(epoch, log_start, high_watermark)| PartitionBounds {
        epoch,
        log_start,
        high_watermark,
    })
}

fn items() -> impl Strategy<Value = AppendItem> {
    let ack = prop_oneof![Just(AckLevel::Memory), Just(AckLevel::Stored)];
    let numbers = (any::<u64>(), any::<u64>(), any::<u32>());
    (numbers, partitions(), epochs(), ack, vec(any::<u8>(), 0..20)).prop_map(
        |((id, channel, generation), partition, epoch, ack, batch)| AppendItem {
            id,
            channel,
            generation,
            partition,
            epoch,
            ack,
            batch: batch.into(),
        },
    )
}

fn errors() -> impl Strategy<Value = ServiceError> {
    (0..ErrorCode::ALL.len(), any::<bool>(), ".{0,20}").prop_map(|(code, unknown, message)| {
        let happened = if unknown { Happened::Unknown } else { Happened::NotApplied };
        ServiceError { code: ErrorCode::ALL[code], happened, message }
    })
}

fn answers() -> impl Strategy<Value = AppendAnswer> {
    let appended =
        (offsets(), any::<bool>(), option::of(any::<i64>())).prop_map(|(base_offset, deduplicated, append_time_ms)| {
            Ok(Appended { base_offset, deduplicated, append_time_ms })
        });
    let result = prop_oneof![appended, errors().prop_map(Err)];
    (any::<u64>(), result).prop_map(|(id, result)| AppendAnswer { id, result })
}

/// Checks one stored record: its bytes come back, and those of a newer schema do not.
fn check_stored<R: StoredRecord + PartialEq + Debug>(record: R) {
    let mut bytes = encode_record(&record);
    assert_eq!(decode_record::<R>(&bytes).as_ref(), Ok(&record));
    // Field 1 is the schema, and of a field that comes twice the last counts.
    bytes.extend([1 << 3, 2]);
    assert!(matches!(decode_record::<R>(&bytes), Err(DecodeError::Invalid { found: 2, .. })), "{record:?}");
    assert!(matches!(decode_record::<R>(&[]), Err(DecodeError::Invalid { found: 0, .. })));
    assert!(matches!(decode_record::<R>(&[0xff]), Err(DecodeError::Malformed { .. })));
}

macro_rules! check_message {
    (&$value:expr => $message:ty) => {{
        let value = $value;
        let message: $message = (&value).into();
        prop_assert_eq!(message.try_into(), Ok(value));
    }};
    ($value:expr => $message:ty) => {{
        let value = $value;
        let message: $message = value.clone().into();
        prop_assert_eq!(message.try_into(), Ok(value));
    }};
}

proptest! {
    #[test]
    fn stored_records_come_back(
        topic in topics(),
        session in sessions(),
        intent in intents(),
        head in heads(),
        segment in segments(),
        checkpoint in checkpoints(),
        garbage in garbage(),
        id in ids(),
        number in any::<u64>(),
    ) {
        check_stored(ClusterRecord { cluster: ClusterId(id), feature_level: number as u32 });
        check_stored(topic);
        check_stored(StoredSession { session, id: SessionId(number) });
        check_stored(intent);
        check_stored(TermRecord { term: Term(number), session: SessionId(number ^ 1) });
        check_stored(CounterRecord { next: number });
        check_stored(head);
        check_stored(segment);
        check_stored(checkpoint);
        check_stored(garbage);
    }

    #[test]
    fn commands_come_back(command in commands()) {
        check_message!(&command => pb::PartitionCommand);
    }

    #[test]
    fn watch_events_come_back(event in changes()) {
        check_message!(&event => pb::WatchEvent);
    }

    #[test]
    fn views_come_back(head in heads(), segments in vec(segments(), 0..4), checkpoint in option::of(checkpoints())) {
        check_message!(&PartitionView { head, segments, checkpoint } => pb::PartitionView);
    }

    #[test]
    fn broker_messages_come_back(item in items(), answer in answers(), bounds in bounds(), length in 0_u64..9) {
        let batches = item.batch.clone();
        let read = OwnerRead {
            partition: item.partition, epoch: item.epoch, offset: bounds.log_start, max_bytes: item.generation
        };
        let base_offset = Offset(bounds.log_start.0 / 2);
        let tail = TailEvent { bounds, base_offset, next_offset: base_offset.plus(length), batches: batches.clone() };
        check_message!(item => pb::AppendItem);
        check_message!(answer => pb::AppendAnswer);
        check_message!(read => pb::OwnerReadRequest);
        check_message!(OwnerBatches { bounds, batches } => pb::OwnerReadResponse);
        check_message!(tail => pb::TailEvent);
    }
}

/// A segment record's message that only lacks what a test spoils.
fn segment_message() -> pb::SegmentRecord {
    pb::SegmentRecord {
        schema: 1,
        file: Some(pb::FileId { epoch: 1, nonce: 2 }),
        epoch: 1,
        state: pb::SegmentState::Open.into(),
        ..Default::default()
    }
}

#[test]
fn the_error_names_the_field() {
    let check = |spoil: fn(&mut pb::SegmentRecord), expected: &str| {
        let mut message = segment_message();
        spoil(&mut message);
        assert_eq!(SegmentRecord::try_from(message).unwrap_err().to_string(), expected);
    };
    check(|message| message.file = None, "segment.file is missing");
    check(|message| message.state = 4, "segment.state is 4, must be 1, 2 or 3");
    check(|message| message.state = 0, "segment.state is 0, must be 1, 2 or 3");
    check(|message| message.state = 2, "segment.end is missing");
    check(|message| message.end = Some(Default::default()), "segment.state is 1, must be 2 or 3, as there is an end");
    check(|message| message.epoch = 1 << 31, "segment.epoch is 2147483648, must be at most 2^31 - 1");
    check(
        |message| message.base_offset = 1 << 63,
        "segment.base_offset is 9223372036854775808, must be at most 2^63 - 1",
    );
}

#[test]
fn ids_have_sixteen_bytes() {
    for length in [0, 15, 17] {
        let message = pb::TopicPartition { topic_id: vec![0; length].into(), partition: 0 };
        assert!(TopicPartition::try_from(message).is_err(), "{length} bytes");
    }
}

#[test]
fn commands_act_under_an_epoch_that_exists() {
    let kind = pb::partition_command::Kind::Release(pb::partition_command::Release { epoch: 0 });
    assert_eq!(PartitionCommandKind::try_from(kind).unwrap_err().to_string(), "command.epoch is 0, must be at least 1");
}

#[test]
fn the_message_of_nothing_is_refused() {
    assert!(PartitionCommand::try_from(pb::PartitionCommand::default()).is_err());
    assert!(WatchEvent::try_from(pb::WatchEvent::default()).is_err());
    assert!(AppendItem::try_from(pb::AppendItem::default()).is_err());
    assert!(PartitionView::try_from(pb::PartitionView::default()).is_err());
}
