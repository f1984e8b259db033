"""The FS service: the board's files, and a new file system for a board that has none.

Methods, arguments, results and error codes are those of mongoose-os-libs/rpc-service-fs, which `mos
ls`, `get`, `put` and `rm` are made for; see `mos`'s cli/fs/fs.go. Stricter than there: a name has
no control characters, a new one is such that every update can carry the file over, `data` is true
base64, an offset lies within the file, and only a directory that exists can be listed. `FS.Mount`
and `FS.Umount` are left out: the board has one file system.

An answer of `FS.Get` holds at most `MAX_CHUNK` bytes, whatever `len` asks for (the device goes as
far as its memory does); `left` tells how many are behind them. What `FS.Put` has answered is in the
flash. `mos` sends a chunk again when the answer took too long: with an offset, that does no harm.
"""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rpc_shim.arguments import INT32_MAX, Arguments, base64_bytes, flag, integer, text
from rpc_shim.dispatch import BAD_REQUEST, INTERNAL_ERROR, Call, Dispatcher, RpcError
from rpc_shim.filesystem import ROOT, TYPE_NAME, FileSystemError, Reason, RootFileSystem
from rpc_shim.frame import JsonValue

MAX_CHUNK = 4096

_PATH = text("path", conversion="%Q")
_FILE_NAME = text("filename", required=True, conversion="%Q")
_OFFSET = integer("offset", minimum=-INT32_MAX - 1, maximum=INT32_MAX, conversion="%ld")
_LEN = integer("len", minimum=-INT32_MAX - 1, maximum=INT32_MAX, conversion="%ld")
_DATA = base64_bytes("data")
_APPEND = flag("append")
_SOURCE = text("src", required=True, conversion="%Q")
_DESTINATION = text("dst", required=True, conversion="%Q")
_DEVICE_NAME = text("dev_name", conversion="%Q")
_DEVICE_TYPE = text("dev_type", conversion="%Q")
_DEVICE_OPTIONS = text("dev_opts", conversion="%Q")
_FS_TYPE = text("fs_type", required=True, conversion="%Q")
_FS_OPTIONS = text("fs_opts", conversion="%Q")

# What is answered whichever method met it; everything else is up to the method.
_ANSWERS = {
    Reason.NOT_MOUNTED: (INTERNAL_ERROR, "failed to mount"),
    Reason.INVALID_NAME: (BAD_REQUEST, "illegal name"),
    Reason.BEYOND_END: (BAD_REQUEST, "illegal offset"),
    Reason.FULL: (INTERNAL_ERROR, "failed to write data"),
    Reason.DAMAGED: (INTERNAL_ERROR, "file system error"),
    Reason.FAILED: (INTERNAL_ERROR, "file system error"),
}
_SEE_LIST = " (FS.List names what there is)"


def register_fs_service(
    dispatcher: Dispatcher, root: RootFileSystem, log: Callable[[str], None]
) -> None:
    """Offer the methods on `dispatcher`.

    Args:
        dispatcher: where the methods are offered.
        root: the board's file system, mounted or not. `FS.Mkfs` replaces what is mounted.
        log: takes one line of text without its newline.
    """
    service = _FsService(root, log)
    dispatcher.register("FS.List", service.list_names, Arguments(_PATH))
    dispatcher.register("FS.ListExt", service.list_entries, Arguments(_PATH))
    dispatcher.register("FS.Get", service.get, Arguments(_FILE_NAME, _OFFSET, _LEN))
    dispatcher.register("FS.Put", service.put, Arguments(_FILE_NAME, _OFFSET, _DATA, _APPEND))
    dispatcher.register("FS.Remove", service.remove, Arguments(_FILE_NAME))
    dispatcher.register("FS.Rename", service.rename, Arguments(_SOURCE, _DESTINATION))
    dispatcher.register(
        "FS.Mkfs",
        service.make_file_system,
        Arguments(_DEVICE_NAME, _DEVICE_TYPE, _DEVICE_OPTIONS, _FS_TYPE, _FS_OPTIONS),
    )


class _FsService:
    def __init__(self, root: RootFileSystem, log: Callable[[str], None]) -> None:
        self._root = root
        self._log = log

    def list_names(self, call: Call) -> JsonValue:
        with _answering(BAD_REQUEST, "failed to open directory"):
            return self._root.require().names(call.arguments.get(_PATH) or ROOT)

    def list_entries(self, call: Call) -> JsonValue:
        with _answering(BAD_REQUEST, "failed to open directory"):
            entries = self._root.require().entries(call.arguments.get(_PATH) or ROOT)
        return [{"name": entry.name, "size": entry.size} for entry in entries]

    def get(self, call: Call) -> JsonValue:
        name = call.arguments.require(_FILE_NAME)
        offset = call.arguments.get(_OFFSET) or 0
        length = call.arguments.get(_LEN)
        if offset < 0:
            raise RpcError(BAD_REQUEST, f"illegal offset {offset}: it must be 0 or more")
        if length is None or length < 0:
            length = MAX_CHUNK
        with _answering(BAD_REQUEST, "failed to open file"):
            files = self._root.require()
            data = files.read(name, offset, min(length, MAX_CHUNK))
            left = files.size(name) - offset - len(data)
        if offset == 0:
            self._log(f"fs: sending {name}")
        return {"data": base64.b64encode(data).decode("ascii"), "left": left}

    def put(self, call: Call) -> JsonValue:
        name = call.arguments.require(_FILE_NAME)
        offset = call.arguments.get(_OFFSET)
        if offset is None or offset < 0:
            offset = None if call.arguments.get(_APPEND) else 0
        data = call.arguments.get(_DATA) or b""
        with _answering(BAD_REQUEST, "failed to open file"):
            files = self._root.require()
            files.check_creatable(name)
            if offset is None:
                files.append(name, data)
            elif offset:
                files.write_at(name, offset, data)
            else:
                files.write(name, data)
        if offset == 0:
            self._log(f"fs: receiving {name}")
        return None

    def remove(self, call: Call) -> JsonValue:
        name = call.arguments.require(_FILE_NAME)
        with _answering(INTERNAL_ERROR, "remove failed"):
            self._root.require().remove(name)
        self._log(f"fs: removed {name}")
        return None

    def rename(self, call: Call) -> JsonValue:
        source, destination = call.arguments.require(_SOURCE), call.arguments.require(_DESTINATION)
        with _answering(INTERNAL_ERROR, "rename failed"):
            files = self._root.require()
            files.check_creatable(destination)
            files.rename(source, destination)
        return None

    def make_file_system(self, call: Call) -> JsonValue:
        given = call.arguments
        device = self._root.partition.name
        has_options = any(
            given.get(argument) for argument in (_DEVICE_TYPE, _DEVICE_OPTIONS, _FS_OPTIONS)
        )
        if given.get(_DEVICE_NAME) != device or given.require(_FS_TYPE) != TYPE_NAME or has_options:
            raise RpcError(
                BAD_REQUEST,
                "only the board's own file system can be made anew: expected "
                f'{{"dev_name": "{device}", "fs_type": "{TYPE_NAME}"}} and no options',
            )
        with _answering(INTERNAL_ERROR, "mkfs failed"):
            self._root.format()
        self._log(f"fs: new file system on {device}")
        return None


@contextmanager
def _answering(code: int, message: str) -> Iterator[None]:
    """Answer what the file system refuses as the device does, and say why.

    Args:
        code: the method's own code for it.
        message: what the method's own error message begins with.
    """
    try:
        yield
    except FileSystemError as error:
        code, message = _ANSWERS.get(error.reason, (code, message))
        hint = _SEE_LIST if error.reason is Reason.NOT_FOUND else ""
        raise RpcError(code, f"{message} {error}{hint}") from error
