//! A LevelDB that is written to all the time, as Foundry does, and the judge of a copy: Python programs for the image of
//! [`DockerEngine`](crate::DockerEngine).

/// Writes into a directory as fast as it can; a key is acknowledged (appended to a file) once LevelDB has taken it. With
/// another argument it also changes the times of every file in `maps` all the time.
pub const WRITER: &str = r"
import glob, os, sys, threading, time, plyvel
os.chdir(sys.argv[1])
def touch():
    while True:
        for name in glob.glob('maps/*'):
            os.utime(name)
        time.sleep(0.3)
if len(sys.argv) > 2:
    threading.Thread(target=touch, daemon=True).start()
db = plyvel.DB('db', create_if_missing=True, write_buffer_size=1 << 18)
acknowledged = os.open('acknowledged', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
last = next(iter(db.iterator(reverse=True, include_value=False)), b'0')
number = int(last)
while True:
    number += 1
    db.put(b'%012d' % number, os.urandom(100))
    os.write(acknowledged, b'%d\n' % number)
    if number % 50 == 0:
        time.sleep(0.005)
";

/// Opens the database in that directory strictly; how many keys it holds, which must be all up to the last acknowledged one.
pub const READER: &str = r"
import os, sys, plyvel
os.chdir(sys.argv[1])
db = plyvel.DB('db', create_if_missing=False, paranoid_checks=True)
keys = {int(key) for key in db.iterator(include_value=False, verify_checksums=True)}
acknowledged = {int(line) for line in open('acknowledged')}
assert acknowledged <= keys, sorted(acknowledged - keys)[:5]
assert len(keys - acknowledged) <= 1, len(keys - acknowledged)
print(len(acknowledged))
";
