//! Which faults a run has, and how often: each seed takes a random subset ("swarm testing": a fault that is always on
//! hides what only happens without it).

use super::dice::Dice;

/// Chances in a thousand, at each opportunity; 0 for a fault that this run does not have.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    // At each beat of the chaos, about twice a second.
    pub crash: u32,
    pub pause: u32,
    pub power_loss: u32,
    pub old_metadata: u32,
    pub namenode_down: u32,
    pub meta_down: u32,
    pub stream_lost: u32,
    pub move_intent: u32,
    pub index_lost: u32,
    pub index_flipped: u32,
    pub idle_breaks: u32,
    pub wish_roll: u32,
    pub delete_records: u32,
    // At each message.
    pub message_slow: u32,
    pub watch_lag: u32,
    pub command_lost: u32,
    pub command_answer_lost: u32,
    pub command_late: u32,
    pub command_slow: u32,
    // At each operation of the store.
    pub first_sync_fails: u32,
    pub sync_fails_before: u32,
    pub sync_fails_after: u32,
    pub sync_hangs: u32,
    pub sync_slow: u32,
    pub create_fails: u32,
    pub create_leaves_file: u32,
    pub create_slow: u32,
    pub store_answer_lost: u32,
    pub store_slow: u32,
    pub recovery_slow: u32,
    pub recovery_very_slow: u32,
    pub index_write_fails: u32,
    /// At each recovery of a file of which something is known to be durable.
    pub damage_open: u32,
    pub damage_sealed: u32,
}

impl Faults {
    /// A random subset. Damage is rare, since a damaged partition refuses to go on.
    pub fn swarm(dice: &mut Dice, local: bool) -> Self {
        let usual = !dice.chance(60);
        let old_copies = dice.chance(30);
        let mut some = |rates: [u32; 3]| if dice.chance(450) { *dice.pick(&rates) } else { 0 };
        Self {
            crash: some([10, 40, 120]),
            pause: some([20, 60, 150]),
            power_loss: if local { some([10, 30, 80]) } else { 0 },
            old_metadata: if old_copies { 60 } else { 0 },
            namenode_down: some([10, 30, 60]),
            meta_down: some([10, 30, 60]),
            stream_lost: some([20, 100, 200]),
            move_intent: some([20, 80, 250]),
            index_lost: some([20, 60, 200]),
            index_flipped: some([20, 60, 200]),
            idle_breaks: some([20, 80, 200]),
            wish_roll: some([10, 40, 100]),
            message_slow: some([20, 100, 300]),
            watch_lag: some([50, 150, 400]),
            command_lost: some([20, 80, 200]),
            command_answer_lost: some([20, 80, 250]),
            command_late: some([20, 80, 250]),
            command_slow: some([30, 100, 300]),
            first_sync_fails: some([50, 150, 400]),
            sync_fails_before: some([2, 10, 30]),
            sync_fails_after: some([2, 10, 30]),
            sync_hangs: if local { 0 } else { some([2, 10, 30]) },
            // Long enough for a fence to fall into it.
            sync_slow: some(if local { [100, 300, 600] } else { [10, 50, 150] }),
            create_fails: some([30, 100, 400]),
            create_leaves_file: some([20, 60, 200]),
            create_slow: some([30, 100, 300]),
            store_slow: some([20, 80, 200]),
            store_answer_lost: some([20, 80, 250]),
            recovery_slow: if local { 0 } else { some([50, 150, 400]) },
            recovery_very_slow: if local || usual { 0 } else { 150 },
            index_write_fails: some([50, 150, 400]),
            damage_open: if dice.chance(120) { 200 } else { 0 },
            damage_sealed: if dice.chance(80) { 200 } else { 0 },
            delete_records: 0,
        }
    }
}
