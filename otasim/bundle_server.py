"""A small HTTP server on this machine that offers firmware bundles, for the demo and for tests."""

from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Self

import firmware
from bootloader_model.app_info import read_app_info
from platforms.errors import OtasimError
from rpc_shim.bundle.create import create_bundle
from rpc_shim.bundle.image_file import FirmwareImage, load_image

_BUILT = datetime(2026, 1, 1, tzinfo=UTC)  # fixed, so that equal images give equal bundles


def bundle_of(sample: str, *, padded_to: int = 0) -> bytes:
    """A bundle of one of the sample images, its application filled up to `padded_to` bytes."""
    image = load_image(firmware.path(sample))
    info = read_app_info(image.data)
    if info is None:
        raise OtasimError(f"{sample} does not say which version it is")
    padded = FirmwareImage(image.address, image.data.ljust(padded_to, b"\xff"))
    return create_bundle(
        padded,
        name=info.name,
        version=info.version,
        build_id=info.build_id,
        build_timestamp=_BUILT,
    )


class BundleServer:
    """Serves byte strings by name on the loopback, on a port of its own."""

    def __init__(self) -> None:
        files: dict[str, bytes] = {}

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                content = files.get(self.path.lstrip("/"))
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "application/zip")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Requests are no news here."""

        self._files = files
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def publish(self, name: str, content: bytes) -> str:
        """Offer `content` as `name` and return its URL."""
        self._files[name] = content
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}/{name}"

    def publish_sample(self, sample: str) -> str:
        """Offer the bundle of a sample image and return its URL."""
        return self.publish(f"{sample}.zip", bundle_of(sample))

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()
