"""A browser's tab as the dashboard's server sees it: streamlit's own messages over its websocket.

What streamlit's browser side does is done here as far as the server can tell: every shown widget's state is sent with every
rerun, a widget bound to the address changes the address, a page is left with the frame's widgets alone, a file is put where
the server says.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from http.client import HTTPConnection
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlencode

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Common_pb2 import DoubleArray, FileUploaderState, StringArray, UploadedFileInfo
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

ENDS_WITHIN = 60
"""Seconds until a rerun must end."""
COOKIE = "_streamlit_xsrf"


class Tab:
    """One session: what is shown in it, the state of its widgets, its address."""

    def __init__(self, connection: ClientConnection, port: int, cookie: str, query: str, hear: Callable[[bytes], None]) -> None:
        self.connection, self.port, self.cookie, self.hear = connection, port, cookie, hear
        self.query = parse_qs(query, keep_blank_values=True)
        self.session = self.page = self.frame = ""
        self.pages: dict[str, str] = {}
        """Each page's address and what streamlit calls it."""
        self.shown: dict[tuple[int, ...], tuple[str, Any, str, str]] = {}
        """By place: kind and content of an element, the fragment and the script it belongs to."""
        self.states: dict[str, WidgetState] = {}
        self.failures: list[str] = []
        self.latencies: list[float] = []

    # what it shows

    def elements(self, *kinds: str) -> Iterator[Any]:
        """The shown elements of some kinds."""
        return (element for kind, element, *_ in self.shown.values() if kind in kinds)

    def element(self, kind: str, label: str) -> Any:
        """The shown element with a label."""
        return next(element for element in self.elements(kind) if element.label == label)

    # what a person does

    async def change(self, kind: str, widget: Any, value: dict[str, Any]) -> None:
        """Sets a widget."""
        self.states[widget.id] = WidgetState(id=widget.id, **value)
        if getattr(widget, "query_param_key", ""):
            self.query[widget.query_param_key] = _in_address(value)
        fragment = next(fragment for _, shown, fragment, _ in self.shown.values() if shown is widget)
        await self.rerun(fragment=fragment)
        if kind == "button":
            del self.states[widget.id]

    async def choose(self, slider: Any, option: str) -> None:
        """Sets a slider of options."""
        await self.change("slider", slider, {"string_array_value": StringArray(data=[option])})

    async def walk(self, page: str) -> None:
        """Opens another page by the navigation; the frame's widgets stay as they are."""
        kept = {element.id for _, element, _, script in self.shown.values() if script == self.frame and hasattr(element, "id")}
        self.states = {name: state for name, state in self.states.items() if name in kept}
        self.page = self.pages[page]
        await self.rerun()

    async def upload(self, name: str, content: bytes) -> None:
        """Puts a file into the page's uploader."""
        widget = next(self.elements("file_uploader"))
        asked = BackMsg()
        asked.file_urls_request.request_id = secrets.token_hex(8)
        asked.file_urls_request.file_names.append(name)
        asked.file_urls_request.session_id = self.session
        await self.connection.send(asked.SerializeToString())
        urls = (await self._until("file_urls_response")).file_urls_response.file_urls[0]
        status, _ = await asyncio.to_thread(self._put, urls.upload_url, name, content)
        if status != 204:
            self.failures.append(f"the upload of {len(content)} bytes was answered with {status}")
            return
        info = UploadedFileInfo(name=name, size=len(content), file_id=urls.file_id, file_urls=urls)
        await self.change("file_uploader", widget, {"file_uploader_state_value": FileUploaderState(uploaded_file_info=[info])})

    async def download(self, button: Any) -> bytes:
        """Clicks a download button."""
        status, content = await asyncio.to_thread(_ask, self.port, "GET", button.url)
        if status != 200 or not content:
            self.failures.append(f"{button.label}: {status} and {len(content)} bytes")
        self.hear(content)
        return content

    async def rerun(self, page_name: str = "", fragment: str = "") -> None:
        """Has the script run, as every change of a widget does, and waits for its end."""
        asked = BackMsg()
        state = asked.rerun_script
        state.query_string = urlencode(self.query, doseq=True)
        state.page_script_hash, state.page_name, state.fragment_id = self.page, page_name, fragment
        state.widget_states.widgets.extend(self.states.values())
        state.context_info.url = f"http://127.0.0.1:{self.port}/{page_name}"
        state.context_info.locale, state.context_info.timezone = "en-GB", "UTC"
        before = self.shown
        self.shown = {place: element for place, element in before.items() if fragment and element[2] != fragment}
        start = time.perf_counter()
        await self.connection.send(asked.SerializeToString())
        try:
            await self._until("script_finished")
        except TimeoutError:
            self.failures.append(f"a rerun did not end within {ENDS_WITHIN} s")
            raise
        self.latencies.append(time.perf_counter() - start)
        self._remember()

    # messages

    async def _until(self, wanted: str) -> ForwardMsg:
        async with asyncio.timeout(ENDS_WITHIN):
            while True:
                content = await self.connection.recv(decode=False)
                self.hear(content)
                message = ForwardMsg.FromString(content)
                self._take(message)
                early = message.script_finished == ForwardMsg.FINISHED_EARLY_FOR_RERUN
                if message.WhichOneof("type") == wanted and not (wanted == "script_finished" and early):
                    return message

    def _take(self, message: ForwardMsg) -> None:
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self.session = message.new_session.initialize.session_id
            self.frame = message.new_session.main_script_hash
        elif kind == "navigation":
            self.pages = {page.url_pathname: page.page_script_hash for page in message.navigation.app_pages}
            self.page = message.navigation.page_script_hash
        elif kind == "page_info_changed":
            self.query = parse_qs(message.page_info_changed.query_string, keep_blank_values=True)
        elif kind == "page_not_found":
            self.failures.append(f"no page {message.page_not_found.page_name!r}")
        elif kind == "session_event":
            self.failures.append(f"session event: {message.session_event}"[:500])
        elif kind == "script_finished" and message.script_finished == ForwardMsg.FINISHED_WITH_COMPILE_ERROR:
            self.failures.append("the script does not compile")
        elif kind == "delta" and message.delta.HasField("new_element"):
            element = message.delta.new_element
            sort = element.WhichOneof("type")
            content = getattr(element, sort)
            if sort == "exception":
                self.failures.append(f"{content.type}: {content.message} {' '.join(content.stack_trace[-3:])}")
            where = tuple(message.metadata.delta_path)
            self.shown[where] = sort, content, message.delta.fragment_id, message.metadata.active_script_hash

    def _remember(self) -> None:
        """The states of the shown widgets; the others are forgotten."""
        states = {}
        for kind, element, *_ in self.shown.values():
            if name := getattr(element, "id", ""):
                first = _first(kind, element)
                if name in self.states and not getattr(element, "set_value", False):
                    states[name] = self.states[name]
                elif first is not None:
                    states[name] = WidgetState(id=name, **first)
        self.states = states

    def _put(self, url: str, name: str, content: bytes) -> tuple[int, bytes]:
        line = secrets.token_hex(16)
        head = f'--{line}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: text/plain\r\n\r\n'
        sent = head.encode() + content + f"\r\n--{line}--\r\n".encode()
        headers = {
            "Content-Type": f"multipart/form-data; boundary={line}",
            "X-Xsrftoken": self.cookie,
            "Cookie": f"{COOKIE}={self.cookie}",
        }
        return _ask(self.port, "PUT", url, sent, headers)


@asynccontextmanager
async def opened(port: int, page: str = "", query: str = "", hear: Callable[[bytes], None] = len) -> AsyncIterator[Tab]:
    """A tab that has opened a link; `hear` gets every message and every file that it receives."""
    cookie = await asyncio.to_thread(_cookie, port)
    async with connect(
        f"ws://127.0.0.1:{port}/_stcore/stream",
        origin=Origin(f"http://127.0.0.1:{port}"),
        subprotocols=[Subprotocol("streamlit"), Subprotocol(cookie)],
        additional_headers={"Cookie": f"{COOKIE}={cookie}"},
        max_size=None,
        open_timeout=ENDS_WITHIN,
        ping_interval=None,  # as a browser, which only answers the server's
        proxy=None,
    ) as connection:
        tab = Tab(connection, port, cookie, query, hear)
        await tab.rerun(page_name=page)
        yield tab


def another(kind: str, widget: Any, random: Random) -> dict[str, Any] | None:
    """A value that a person might set a widget to; None where there is none."""
    if widget.disabled:
        return None
    if kind == "number_input":
        low, high = (widget.min if widget.has_min else -1e6), (widget.max if widget.has_max else 1e6)
        now = widget.value if widget.set_value else widget.default
        return {"double_value": min(max(random.choice([1, now + 1, now - 1, 2 * now, random.randint(1, 64)]), low), high)}
    if kind == "slider":
        if widget.options:
            return {"string_array_value": StringArray(data=[random.choice(widget.options)])}
        return {"double_array_value": DoubleArray(data=[random.uniform(widget.min, widget.max)])}
    if kind in ("selectbox", "radio"):
        return {"string_value": random.choice(widget.options)} if widget.options else None
    if kind == "multiselect":
        most = min(widget.max_selections or len(widget.options), len(widget.options))
        return {"string_array_value": StringArray(data=random.sample(list(widget.options), random.randint(1, most)))}
    if kind == "checkbox":
        return {"bool_value": random.random() < 0.5}
    return {"trigger_value": True} if kind == "button" else None


CHANGEABLE = ("number_input", "slider", "selectbox", "radio", "multiselect", "checkbox", "button")


def _first(kind: str, widget: Any) -> dict[str, Any] | None:
    """The state that a widget has when it is shown, before anybody has set it."""
    told = getattr(widget, "set_value", False)
    if kind in ("selectbox", "radio"):
        chosen = (
            widget.raw_value if told else widget.options[widget.default] if widget.HasField("default") and widget.options else None
        )
        return {"string_value": chosen} if chosen is not None else {}
    if kind == "number_input":
        has = widget.HasField("value") if told else widget.HasField("default")
        return {"double_value": widget.value if told else widget.default} if has else {}
    if kind == "multiselect":
        return {
            "string_array_value": StringArray(
                data=widget.raw_values if told else [widget.options[place] for place in widget.default]
            )
        }
    if kind == "slider" and widget.options:
        return {
            "string_array_value": StringArray(
                data=widget.raw_value if told else [widget.options[int(place)] for place in widget.default]
            )
        }
    if kind == "slider":
        return {"double_array_value": DoubleArray(data=widget.value if told else widget.default)}
    return {"bool_value": widget.value if told else widget.default} if kind == "checkbox" else None


def _in_address(value: dict[str, Any]) -> list[str]:
    """A widget's value as streamlit's browser side writes it into the address."""
    (content,) = value.values()
    if isinstance(content, bool):
        return [str(content).lower()]
    if isinstance(content, float | int | str):
        return [f"{content:g}" if isinstance(content, float) and content % 1 else str(content).removesuffix(".0")]
    return [str(item) for item in content.data]


def _cookie(port: int) -> str:
    connection = HTTPConnection("127.0.0.1", port, timeout=ENDS_WITHIN)
    connection.request("GET", "/_stcore/health")
    told = connection.getresponse().getheader("Set-Cookie", "")
    connection.close()
    return told.partition(f"{COOKIE}=")[2].partition(";")[0].strip('"')


def _ask(
    port: int, method: str, url: str, content: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=ENDS_WITHIN)
    connection.request(method, url, content, headers or {})
    answer = connection.getresponse()
    read = answer.status, answer.read()
    connection.close()
    return read
