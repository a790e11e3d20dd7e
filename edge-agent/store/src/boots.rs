//! How long the gateway's system was up, over all its starts.

use rusqlite::Connection;

use crate::error::Cause;
use crate::rows;

/// Starts that are remembered. A record of an older one counts as made at the beginning of the oldest that is.
pub const MAX_BOOTS: usize = 64;

/// A start of the gateway's system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Its number.
    pub boot: u64,
    /// Powered time when it began: how long the system had been up before, in microseconds.
    pub base_us: u64,
    /// How long it has been up since, in microseconds, as far as it was told.
    pub last_us: u64,
}

impl Boot {
    fn checksum(self) -> u32 {
        rows::checksum([self.boot, self.base_us, self.last_us].map(u64::to_le_bytes).as_flattened())
    }

    pub(crate) fn store(self, connection: &Connection) -> Result<(), Cause> {
        connection
            .prepare_cached("REPLACE INTO boots (boot, checksum, base_us, last_us) VALUES (?1, ?2, ?3, ?4)")?
            .execute((
                rows::integer(self.boot),
                self.checksum(),
                rows::integer(self.base_us),
                rows::integer(self.last_us),
            ))?;
        Ok(())
    }
}

/// Those that are whole, the latest last, and how many are not. A damaged one may be passed over: what was made in a
/// boot that is not known does not seem older than it is.
pub(crate) fn read(connection: &Connection) -> Result<(Vec<Boot>, usize), Cause> {
    let mut statement = connection.prepare_cached("SELECT boot, checksum, base_us, last_us FROM boots")?;
    let mut found = statement.query([])?;
    let (mut boots, mut damaged) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        let number = |column| row.get(column).map(rows::number);
        let boot = Boot { boot: number(0)?, base_us: number(2)?, last_us: number(3)? };
        if row.get::<_, u32>(1)? == boot.checksum() {
            boots.push(boot);
        } else {
            damaged += 1;
        }
    }
    boots.sort_unstable_by_key(|boot| (boot.base_us, boot.last_us, boot.boot));
    Ok((boots, damaged))
}

/// The system has been up for so long in this boot.
pub(crate) fn powered(connection: &Connection, boot: u64, monotonic_us: u64) -> Result<(), Cause> {
    let (boots, _) = read(connection)?;
    let known = boots.iter().find(|known| known.boot == boot);
    let ended = boots.iter().map(|known| known.base_us.saturating_add(known.last_us)).max().unwrap_or(0);
    let (base_us, last_us) = known.map_or((ended, 0), |known| (known.base_us, known.last_us));
    Boot { boot, base_us, last_us: last_us.max(monotonic_us) }.store(connection)?;
    if known.is_none() && boots.len() >= MAX_BOOTS {
        for old in &boots[..=boots.len() - MAX_BOOTS] {
            connection.prepare_cached("DELETE FROM boots WHERE boot = ?1")?.execute([rows::integer(old.boot)])?;
        }
    }
    Ok(())
}
