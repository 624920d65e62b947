//! A clock that is set while the machine runs: the ends of what is held are moved along.

#[cfg(target_os = "linux")]
use std::{fs, sync::OnceLock};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::error::Fault;
use crate::clock;

/// The least change of the clock that moves ends, in milliseconds.
const NOTICED: u64 = 2_000;

/// How the clock stands at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// The start of the machine since which it runs.
    boot: &'static str,
    /// By how much it is ahead of the time since then, in milliseconds.
    pub(super) ahead: i64,
}

impl Clock {
    /// As it stands now. `None` where the system does not tell the time since its start.
    pub(super) fn now() -> Option<Self> {
        let boot = boot()?;
        let since_boot = i64::try_from(clock::since_boot()?.as_millis()).ok()?;
        let ahead = Timestamp::now().as_millisecond().checked_sub(since_boot)?;
        Some(Self { boot, ahead })
    }

    /// Whether it stood about there.
    pub(super) fn is_at(&self, ahead: i64) -> bool {
        self.ahead.abs_diff(ahead) < NOTICED
    }

    /// Moves the ends that were written since the machine started by as much as the clock was set since.
    /// Older rows stay, since nobody knows how the clock stood when they were written.
    pub(super) fn follow(&self, transaction: &Connection) -> Result<(), Fault> {
        let before = self.before(transaction)?;
        if before.is_some_and(|before| self.is_at(before)) {
            return Ok(());
        }
        let moved = before.map_or(0, |before| self.ahead.saturating_sub(before));
        for sql in [
            "UPDATE reservations SET ends = ends + ?1 WHERE boot = ?2",
            "UPDATE pending_reservations SET ends = ends + ?1 WHERE boot = ?2",
        ] {
            transaction.prepare_cached(sql)?.execute(params![moved, self.boot])?;
        }
        let sql = "INSERT OR REPLACE INTO clock (one, boot, ahead) VALUES (1, ?1, ?2)";
        transaction.prepare_cached(sql)?.execute(params![self.boot, self.ahead])?;
        Ok(())
    }

    /// The same for a database as it is opened.
    pub(super) fn follow_at_start(&self, connection: &Connection) -> Result<(), Fault> {
        if self.before(connection)?.is_some_and(|before| self.is_at(before)) {
            return Ok(());
        }
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        self.follow(&transaction)?;
        Ok(transaction.commit()?)
    }

    /// How far ahead it was since the machine started, when the ends last followed it.
    fn before(&self, connection: &Connection) -> Result<Option<i64>, Fault> {
        let sql = "SELECT ahead FROM clock WHERE boot = ?1";
        let mut statement = connection.prepare_cached(sql)?;
        Ok(statement.query_row([self.boot], |row| row.get(0)).optional()?)
    }
}

/// Has the ends of what is held follow the clock, before more is written by it.
pub(super) fn follow(transaction: &Connection) -> Result<(), Fault> {
    Clock::now().map_or(Ok(()), |clock| clock.follow(transaction))
}

/// The start of the machine, for the rows that are written since. Where a container has a time of its
/// own since then, another.
#[cfg(target_os = "linux")]
pub(super) fn boot() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let namespace = fs::read_link("/proc/self/ns/time").unwrap_or_default();
        Some(format!("{} {}", id.trim(), namespace.display()))
    };
    BOOT.get_or_init(read).as_deref()
}

/// Not told by other systems.
#[cfg(not(target_os = "linux"))]
pub(super) fn boot() -> Option<&'static str> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema::{MIGRATIONS, migrate};

    const HERE: &str = "here";

    const DAY: i64 = 24 * 60 * 60 * 1000;

    /// The ends of what was written since this start, and of all else.
    fn ends(connection: &Connection) -> [Vec<i64>; 2] {
        let ends = |of: &str| {
            let sql = format!(
                "SELECT ends FROM reservations WHERE {of}
                 UNION ALL SELECT ends FROM pending_reservations WHERE {of}"
            );
            let mut statement = connection.prepare(&sql).unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        };
        ["boot = 'here'", "boot IS NOT 'here'"].map(ends)
    }

    #[test]
    fn what_is_held_since_the_start_of_the_machine_follows_its_clock() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        let rows = "
            INSERT INTO reservations (wallet, job, client, ends, boot) VALUES
                ('w', 'here', 'ci', 100, 'here'), ('w', 'before', 'ci', 100, 'before'),
                ('w', 'unknown', 'ci', 100, NULL);
            INSERT INTO pending_reservations (wallet, job, client, ends, boot) VALUES
                ('w', 'here', 'ci', 100, 'here'), ('w', 'before', 'ci', 100, 'before');";
        connection.execute_batch(rows).unwrap();
        let follow = |boot, ahead| {
            Clock { boot, ahead }.follow(&connection).unwrap();
            ends(&connection)
        };
        let unmoved = [vec![100; 2], vec![100; 3]];
        // Set for the first time, not at all, by very little, two days ahead, and back.
        assert_eq!(follow(HERE, 5_000), unmoved);
        assert_eq!(follow(HERE, 5_000), unmoved);
        assert_eq!(follow(HERE, 6_999), unmoved);
        let moved = [vec![100 + 2 * DAY; 2], vec![100; 3]];
        assert_eq!(follow(HERE, 5_000 + 2 * DAY), moved);
        assert_eq!(follow(HERE, 5_000), unmoved);
        // After a start of the machine nothing is known of how the clock was.
        assert_eq!(follow("later", 9 * DAY), unmoved);
        assert_eq!(follow("later", 0), unmoved);
    }
}
