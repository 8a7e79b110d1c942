//! Which slot a request goes to.

#![forbid(unsafe_code)]

/// With so few slots, all are looked at where one of the two that were drawn is busy.
const FEW: usize = 16;

/// What is known of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How busy it is thought to be.
    pub load: u32,
    /// Requests of this process that it has.
    pub running: u32,
    /// It has just failed.
    pub suspect: bool,
}

impl Standing {
    fn key(self) -> (bool, u32) {
        (self.suspect, self.load)
    }
}

/// The slot to use and, where one was compared with it, the slot that lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// To be used.
    pub slot: usize,
    /// Compared and not taken.
    pub loser: Option<usize>,
}

/// The less loaded of two slots that `random` picks out of `count` (not 0). One that has just
/// failed is taken only if all have.
#[inline]
pub fn choose(count: usize, random: u32, standing: impl Fn(usize) -> Standing) -> Choice {
    if count == 1 {
        return Choice {
            slot: 0,
            loser: None,
        };
    }
    let scale = |value: u32, range: usize| ((u64::from(value) * range as u64) >> 16) as usize;
    let first = scale(random & 0xffff, count);
    let second = (first + 1 + scale(random >> 16, count - 1)) % count;
    let (one, other) = (standing(first), standing(second));
    let (slot, loser) = if other.key() < one.key() {
        (second, first)
    } else {
        (first, second)
    };
    // A request that waits behind others while a third slot has a free thread is worse than a look
    // at all of them.
    if !(one.suspect && other.suspect) && one.running.max(other.running) > 0 && count <= FEW {
        let least = (0..count)
            .map(|step| (first + step) % count)
            .min_by_key(|&slot| {
                let standing = standing(slot);
                (standing.suspect, standing.running, standing.load)
            })
            .unwrap_or(slot);
        let loser = (least != slot).then_some(slot).or(Some(loser));
        return Choice { slot: least, loser };
    }
    if one.suspect && other.suspect {
        // Both drawn are bad: any that is not will do.
        let good = (0..count)
            .map(|step| (first + step) % count)
            .find(|&slot| !standing(slot).suspect);
        if let Some(slot) = good {
            return Choice { slot, loser: None };
        }
    }
    Choice {
        slot,
        loser: Some(loser),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(load: u32, suspect: bool) -> Standing {
        Standing {
            load,
            running: 0,
            suspect,
        }
    }

    /// Numbers that look random.
    fn randoms() -> impl Iterator<Item = u32> {
        (0..10_000_u32).scan(0x9e37_79b9_u32, |state, _| {
            *state ^= *state << 13;
            *state ^= *state >> 17;
            *state ^= *state << 5;
            Some(*state)
        })
    }

    #[test]
    fn one_slot_is_taken_unseen() {
        let choice = choose(1, 7, |_| unreachable!());
        assert_eq!((choice.slot, choice.loser), (0, None));
    }

    #[test]
    fn the_two_differ_and_all_are_drawn() {
        for count in [2, 3, 5, 64] {
            let mut seen = vec![0; count];
            for random in randoms() {
                let choice = choose(count, random, |_| standing(0, false));
                assert_ne!(Some(choice.slot), choice.loser);
                seen[choice.slot] += 1;
            }
            assert!(
                seen.iter().all(|&times| times > 10_000 / count / 2),
                "{seen:?}"
            );
        }
    }

    #[test]
    fn the_less_loaded_of_two_is_taken() {
        for random in randoms() {
            let choice = choose(2, random, |slot| standing([9, 3][slot], false));
            assert_eq!((choice.slot, choice.loser), (1, Some(0)));
        }
    }

    #[test]
    fn suspects_are_avoided_while_there_is_another() {
        for random in randoms() {
            let choice = choose(2, random, |slot| standing([0, 50][slot], slot == 0));
            assert_eq!(choice.slot, 1);
            let choice = choose(8, random, |slot| standing(0, slot != 5));
            assert_eq!(choice.slot, 5);
            let choice = choose(8, random, |slot| standing(slot as u32, true));
            assert!(choice.slot < 8);
        }
    }

    #[test]
    fn no_request_waits_while_a_slot_is_free() {
        for random in randoms() {
            let busy = |slot: usize| Standing {
                load: [4, 4, 9][slot],
                running: [4, 4, 0][slot],
                suspect: false,
            };
            assert_eq!(choose(3, random, busy).slot, 2);
            let equal = |slot: usize| Standing {
                load: [8, 7, 6][slot],
                running: 2,
                suspect: slot == 2,
            };
            let choice = choose(3, random, equal);
            assert_ne!(choice.slot, 2);
            assert_ne!(Some(choice.slot), choice.loser);
        }
    }
}
