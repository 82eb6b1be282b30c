//! A fixed table of what is in flight. A key is a slot's index and its generation, so that a completion
//! that comes twice, or late, is found out instead of being taken for another operation's.

/// The most slots a table may have.
const SLOTS_MAX: usize = 1 << 24;

/// End of the free list.
const NONE: u32 = u32::MAX;

/// Names one life of one slot. Fits a completion's `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// For `user_data`: the index in the lower half, never `u32::MAX`, the generation in the upper.
    pub(super) const fn to_u64(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// Back from `user_data`.
    pub(super) const fn from_u64(value: u64) -> Self {
        Self { index: value as u32, generation: (value >> 32) as u32 }
    }
}

#[derive(Debug)]
enum State<T> {
    Free { next: u32 },
    Used(T),
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    state: State<T>,
}

/// The table. Allocates at construction only; a value stays where it is until it is removed.
#[derive(Debug)]
pub(super) struct Slots<T> {
    table: Box<[Slot<T>]>,
    free: u32,
    used: usize,
}

impl<T> Slots<T> {
    /// An empty table of `capacity` slots.
    pub(super) fn new(capacity: usize) -> Self {
        assert!(capacity > 0 && capacity <= SLOTS_MAX, "a table of {capacity} slots");
        let last = capacity as u32 - 1;
        let table = (0..=last)
            .map(|index| Slot {
                generation: 0,
                state: State::Free { next: if index == last { NONE } else { index + 1 } },
            })
            .collect();
        Self { table, free: 0, used: 0 }
    }

    /// Slots in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// All slots.
    pub(super) fn capacity(&self) -> usize {
        self.table.len()
    }

    /// Puts `value` into a free slot. Panics if there is none: callers bound what they start.
    pub(super) fn insert(&mut self, value: T) -> Key {
        let index = self.free;
        assert!(index != NONE, "a free slot");
        let slot = &mut self.table[index as usize];
        let State::Free { next } = slot.state else { panic!("slot {index} is on the free list") };
        slot.state = State::Used(value);
        self.free = next;
        self.used += 1;
        Key { index, generation: slot.generation }
    }

    /// The value under `key`. Panics if the key is stale.
    pub(super) fn get_mut(&mut self, key: Key) -> &mut T {
        let slot = &mut self.table[key.index as usize];
        assert_eq!(slot.generation, key.generation, "slot {} is of another life", key.index);
        let State::Used(value) = &mut slot.state else { panic!("slot {} is free", key.index) };
        value
    }

    /// Takes the value under `key` out. Panics if the key is stale.
    pub(super) fn remove(&mut self, key: Key) -> T {
        let slot = &mut self.table[key.index as usize];
        assert_eq!(slot.generation, key.generation, "slot {} is of another life", key.index);
        let state = std::mem::replace(&mut slot.state, State::Free { next: self.free });
        let State::Used(value) = state else { panic!("slot {} is free", key.index) };
        slot.generation = slot.generation.wrapping_add(1);
        self.free = key.index;
        self.used -= 1;
        value
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn every_key_finds_its_own_value_until_it_is_removed() {
        let mut slots = Slots::new(64);
        let mut model = HashMap::new();
        let mut keys = Vec::new();
        let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
        for step in 0..4000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if slots.used() < slots.capacity() && (random >> 40).is_multiple_of(2) {
                let key = slots.insert(step);
                assert!(model.insert(key, step).is_none(), "no key lives twice");
                keys.push(key);
            } else if !keys.is_empty() {
                let key = keys.swap_remove((random >> 33) as usize % keys.len());
                let key = Key::from_u64(key.to_u64());
                assert_eq!(Some(*slots.get_mut(key)), model.get(&key).copied());
                assert_eq!(Some(slots.remove(key)), model.remove(&key));
            }
            assert_eq!(slots.used(), model.len());
        }
    }

    #[test]
    fn values_are_dropped_with_the_table() {
        let value = Rc::new(());
        let mut slots = Slots::new(2);
        slots.insert(value.clone());
        drop(slots);
        assert_eq!(Rc::strong_count(&value), 1);
    }

    #[test]
    #[should_panic(expected = "of another life")]
    fn a_stale_key_is_found_out_when_its_slot_is_used_again() {
        let mut slots = Slots::new(1);
        let key = slots.insert(1);
        slots.remove(key);
        slots.insert(2);
        slots.get_mut(key);
    }

    #[test]
    #[should_panic(expected = "of another life")]
    fn a_second_completion_is_found_out() {
        let mut slots = Slots::new(1);
        let key = slots.insert(1);
        slots.remove(key);
        slots.remove(key);
    }

    #[test]
    #[should_panic(expected = "a free slot")]
    fn a_full_table_takes_no_more() {
        let mut slots = Slots::new(1);
        slots.insert(1);
        slots.insert(2);
    }
}
