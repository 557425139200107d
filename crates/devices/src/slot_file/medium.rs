//! What a store is in.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What a store is in: a file. In tests, anything.
pub trait Medium: Send {
    /// Reads as many bytes, or those that there are.
    ///
    /// # Errors
    /// Returns the error of pread(2).
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes.
    ///
    /// # Errors
    /// Returns the error of pwrite(2).
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Sets the length.
    ///
    /// # Errors
    /// Returns the error of ftruncate(2).
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    /// Waits until everything is on stable storage.
    ///
    /// # Errors
    /// Returns the error of fdatasync(2).
    fn sync(&mut self) -> io::Result<()>;
}

impl Medium for File {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match FileExt::read_at(self, &mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(more) => done += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A store that is only read.
impl Medium for &[u8] {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let len = rest.len().min(bytes.len());
        bytes[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&mut self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn set_len(&mut self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}
