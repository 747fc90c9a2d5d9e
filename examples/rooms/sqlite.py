"""A file of a kind of its own: created once, shared by processes, and never taken for another program's."""

import sqlite3
import tempfile

from labkit import sqlite

NOTES = sqlite.FileKind("notes", 0x4E4F5445, 1, ("CREATE TABLE notes (text TEXT) STRICT",), durable=True)
with tempfile.TemporaryDirectory() as folder:
    file = sqlite.open_file(f"{folder}/notes.db", NOTES, busy_timeout=5.0)
    with sqlite.transaction(file):
        file.execute("INSERT INTO notes VALUES ('kept')")
    file.close()
    file = sqlite.open_file(f"{folder}/notes.db", NOTES, busy_timeout=5.0)
    print(file.execute("SELECT text FROM notes").fetchall())
    file.close()
    with sqlite3.connect(f"{folder}/other.db") as other:
        other.execute("CREATE TABLE other (number)")
    try:
        sqlite.open_file(f"{folder}/other.db", NOTES, busy_timeout=5.0)
    except sqlite.Unusable as error:
        print(error.why)
