"""What every spawner of ours has in common: an image of the catalog, chosen and checked, run as the person's server.

Scheduler or none, the same launcher starts the server (`hpcbinder.runtime.launch.server`): the container outside, the
server inside. What differs is how it gets to its machine, and how it is ended there.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jupyterhub.utils import url_path_join
from tornado import web
from traitlets import Any as AnyTrait
from traitlets import Bool, Dict, Integer, List, Tuple, Unicode, default

from hpcbinder import runtime
from hpcbinder.config import SITE_FILE, Config, load
from hpcbinder.errors import HpcbinderError, UsageError
from hpcbinder.jupyterhub.account import Account
from hpcbinder.jupyterhub.form import form
from hpcbinder.jupyterhub.handler import PATH as PORT_PATH
from hpcbinder.jupyterhub.inside import server_argv, server_version_note
from hpcbinder.jupyterhub.offer import Offer, Offers
from hpcbinder.jupyterhub.options import Options
from hpcbinder.jupyterhub.tls import TlsMixin
from hpcbinder.model import Entry
from hpcbinder.scheduler import OF_THE_JOB, Resources
from hpcbinder.text import one_line

_OFFERS: dict[tuple[Any, ...], Offers] = {}
_NOWHERE = Path("/")
"""Files are made for a folder that is not known yet: only their names count."""
_NOT_FOR_SERVERS = re.compile(r"(HOME|USER|LOGNAME|SHELL|PATH|LD_.*|PYTHON.*|CONFIGPROXY_.*)")
"""What the hub may say to a server, but a launcher's own."""
_FROM_HUB = re.compile(r"(JUPYTERHUB_[A-Z0-9_]+|JPY_API_TOKEN|(MEM|CPU)_(LIMIT|GUARANTEE))")


def failure(message: str, *, reason: str, status: int = 500) -> web.HTTPError:
    """An error that the person sees, and that is none of the hub's: no traceback, no count against the hub.

    Args:
        message: One line.
        reason: A word for the hub's metrics.
        status: Of HTTP.
    """
    try:
        from jupyterhub.spawner import SpawnException
    except ImportError:  # before JupyterHub 6
        error = web.HTTPError(status, "%s", message)
    else:
        error = SpawnException(message, reason=reason, status_code=status)
    # What the page of a server that starts shows.
    error.jupyterhub_message = message  # type: ignore[attr-defined]
    return error


class ServerMixin(TlsMixin):
    """For classes in front of a spawner of JupyterHub's."""

    hpcbinder_config = Unicode("", help="Configuration of hpcbinder (TOML); the site's, if empty.").tag(config=True)
    exec_prefix = Unicode(help="What runs a command as {username}; no shell reads it.").tag(config=True)
    node_python = Unicode(
        "", help="Python 3.9 or later where servers run; the one that the hub runs on, if empty."
    ).tag(config=True)
    servers_folder = Unicode(
        "{home}/.local/state/hpcbinder/servers",
        help="Folder of a person's, seen where servers run, for what starts one and for its log. "
        "{home} and {username} stand for the person's.",
    ).tag(config=True)
    minimum_uid = Integer(
        1000, min=1, help="Lowest number of an account that servers are started for; below are those of services."
    ).tag(config=True)
    own_account = Bool(
        False, help="The account that the hub runs as may have servers too: for a hub that its only person runs."
    ).tag(config=True)
    port_range = Tuple(
        Integer(), Integer(), default_value=(1024, 65535), help="Lowest and highest port that a server may take."
    ).tag(config=True)
    passed_environment = List(
        Unicode(),
        ["PATH", "LANG", "LC_ALL", "TZ", "SLURM_CONF"],
        help="Variables of the hub's own environment that jobs, and commands run as a person, get. No other does.",
    ).tag(config=True)
    start_timeout = Integer(12 * 3600, help="Seconds a server may wait in the queue before it is given up.").tag(
        config=True
    )
    default_url = Unicode("/lab", help="What is opened where nobody says otherwise.").tag(config=True)
    env_keep = List(Unicode(), [])

    offers = AnyTrait(help="What there is to choose from: `hpcbinder.jupyterhub.offer.Offers`.").tag(config=True)

    fixed_options = Dict(
        help="What is started, whatever a person says: for a spawner that has other spawners to choose from."
    ).tag(config=True)

    job_facts = Dict(help="What is kept of a server between two starts of the hub.")

    user_options: Any
    awaits_port = False
    """Whether the server is starting, and has not yet said where it listens."""

    @default("exec_prefix")
    def _default_exec_prefix(self) -> str:
        return "runuser -u {username} --" if os.geteuid() == 0 else "sudo -E -u {username} --"

    @default("offers")
    def _default_offers(self) -> Offers:
        key = (self.hpcbinder_config, self.asks_slurm, self.runs_here)
        if key not in _OFFERS:
            own = None if self.runs_here else False
            _OFFERS[key] = Offers(self.config_of_hpcbinder(), scheduler=self.asks_slurm, own=own)
        return _OFFERS[key]

    @default("apply_user_options")
    def _default_apply_user_options(self) -> Any:
        return _apply

    @default("options_form")
    def _default_options_form(self) -> Any:
        return _form

    @default("options_from_form")
    def _default_options_from_form(self) -> Any:
        return self._from_form

    async def _from_form(self, form_data: object) -> dict[str, Any]:
        """What a form or a link says; what is wrong with it is said on that page, before anything is started."""
        self.refused = form_data
        options, _ = await self.choose(form_data)
        self.refused = None
        return options.said()

    refused: object = None
    """What was wrong, until the form has shown it again."""

    reaches_slurm = False
    """Whether a server's notebooks may have workers (docs/workers.md)."""
    has_scheduler = True
    """Whether servers are jobs that ask for resources."""

    asks_slurm = False
    """Whether it is Slurm that knows what they may ask for."""

    runs_here = True
    """Whether the person is somebody on this machine, who may have images of their own here."""

    def config_of_hpcbinder(self) -> Config:
        """The site's configuration of hpcbinder; nothing of the account that the hub runs as."""
        file = Path(self.hpcbinder_config) if self.hpcbinder_config else SITE_FILE
        return load(user_file=Path(os.devnull), site_file=file)

    # What is asked for

    async def offer(self) -> Offer:
        """What this person may choose from now."""
        account = self.account()
        found: Offer = await self.offers.of(account.name, account.prefix)
        return found

    async def choose(self, raw: object) -> tuple[Options, Offer]:
        """Check what was asked for; nothing else of it is ever used.

        Raises:
            web.HTTPError: 400, with one sentence for the person.
        """
        try:
            offer = await self.offer()
            return offer.parse(self.fixed_options or raw), offer
        except HpcbinderError as error:
            message = one_line(error.message, 500)
            self.log.warning("Refused what %s asks for: %s", self._log_name, message)
            raise failure(message, reason="options", status=400) from None

    # The person, and the way to the machine

    def account(self) -> Account:
        """The person's account.

        Raises:
            UsageError: There is none, or it is nobody's who may have servers.
        """
        return Account.of(
            self.user.name,
            prefix=self.exec_prefix,
            environ=self._passed,
            python=self._python,
            minimum_uid=self.minimum_uid,
            hubs=self.own_account,
        )

    @property
    def _passed(self) -> dict[str, str]:
        return {name: os.environ[name] for name in self.passed_environment if name in os.environ}

    @property
    def _python(self) -> str:
        return self.node_python or runtime.launcher_files({}, _NOWHERE)[0][0]

    def place(self, account: Account) -> str:
        """Folder of the person's for servers."""
        path = self.servers_folder.replace("{home}", account.home).replace("{username}", account.name)
        if not re.fullmatch(r"/[^\x00-\x1f\x7f%\\]*", path):
            raise UsageError(f"servers_folder: {one_line(path, 200)!r} is no absolute path that jobs can be told")
        return path

    @property
    def server_name(self) -> str:
        """What its folder and its job are called."""
        name = re.sub(r"[^A-Za-z0-9._-]", "-", self.name)[:40] or "default"
        # Two names may become the same one.
        return f"jupyter-{name}-{hashlib.sha256(self.name.encode()).hexdigest()[:6]}"

    async def prepare(self) -> tuple[Account, Resources, Mapping[str, str]]:
        """Whose server it is, what its job asks for, and the files that start it.

        Raises:
            web.HTTPError: What was asked for is refused, or cannot be had.
        """
        options, offer = await self.choose(self.user_options)
        self.user_options = options.said()
        try:
            account = self.account()
            environment = offer.environments[options.environment]
            entry = await self.offers.entry(account.name, environment, account.prefix)
            resources = offer.resources(options)
            told = self.told_environment(options.path or environment.path)
            tls = await self.credentials(told["JUPYTERHUB_API_URL"])
            files = await asyncio.to_thread(self._files, entry, environment.own, told, options.reset, tls)
        except (HpcbinderError, OSError, ValueError) as error:  # the last where no text in a record can be sent
            message = one_line(error.message if isinstance(error, HpcbinderError) else str(error), 500)
            self.log.warning("Cannot start %s: %s", self._log_name, message)
            raise failure(message, reason="image", status=400) from None
        self.say(f"Starting {environment.title}", 5)
        if note := server_version_note(entry):
            self.say(note, 5)
        return account, resources, files

    def _files(
        self, entry: Entry, own: bool, told: Mapping[str, str], fresh: bool, tls: Mapping[str, str]
    ) -> dict[str, str]:
        settings = self.config_of_hpcbinder()
        description = runtime.describe(
            entry,
            settings.runtime,
            argv=server_argv(),
            # None of the person's: a prologue reads code below $HOME (Lmod, ~/.lmodrc.lua), and here the hub runs it.
            environ=self._passed,
            slurm=settings.slurm,
            # What the person's record names is whatever they like.
            reads_image=not own,
        )
        description["environment"] = [*description["environment"], *OF_THE_JOB, *sorted(told)]
        description["space"] = runtime.space_of(entry, settings.space)
        _, files = runtime.launcher_files(description, _NOWHERE)
        server = {
            "environment": dict(told),
            "ports": list(self.port_range),
            "report": url_path_join(told["JUPYTERHUB_API_URL"], PORT_PATH.removeprefix("/api")),
            "fresh": fresh,
            "tls": dict(tls),
        }
        return {**{name: content.decode() for name, content in files.items()}, "server.json": json.dumps(server)}

    def command(self, folder: str) -> list[str]:
        """What starts a server whose files lie in a folder."""
        return [self._python, "-I", "-S", f"{folder}/launch.py", "--server"]

    def told_environment(self, path: str = "") -> dict[str, str]:
        """What the hub says to the server, secrets among it: its own variables, and those of `Spawner.environment`.

        Args:
            path: File to open, relative to the repository.
        """
        env = {name: value for name, value in self.get_env().items() if value is not None}
        told = {
            name: str(value)
            for name, value in env.items()
            if _FROM_HUB.fullmatch(name) or (name in self.environment and not _NOT_FOR_SERVERS.fullmatch(name))
        }
        if path:
            told["JUPYTERHUB_DEFAULT_URL"] = runtime.opened_at(path)
        return told

    # Where it listens

    def expect_port(self) -> None:
        """From now on the server may say where it listens."""
        self._port_said = asyncio.Event()
        self.job_facts = {**self.job_facts, "token": _fingerprint(self.api_token), "port": 0}
        self.awaits_port = True

    def is_token(self, token: str) -> bool:
        """Whether a token is this very server's."""
        known = str(self.job_facts.get("token", ""))
        return bool(known) and hmac.compare_digest(known, _fingerprint(token))

    def take_port(self, port: int) -> None:
        """The server has said where it listens (`hpcbinder.jupyterhub.handler`)."""
        self.awaits_port = False
        self.job_facts = {**self.job_facts, "port": port}
        # Of a server that a hub finds in the queue when it is restarted the hub itself keeps nothing more.
        self.remember()
        self._port_said.set()

    def remember(self) -> None:
        """Have the hub's database know the job now, not only once the server answers: a hub may be restarted."""
        self.orm_spawner.state = self.get_state()
        self.user.db.commit()

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), **({"hpcbinder": dict(self.job_facts)} if self.job_facts else {})}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        facts = state.get("hpcbinder")
        self.job_facts = dict(facts) if isinstance(facts, dict) else {}
        self._port_said = asyncio.Event()
        if self.job_facts.get("port"):
            self._port_said.set()
        elif self.job_facts.get("token"):
            self.awaits_port = True

    def clear_state(self) -> None:
        super().clear_state()
        self.job_facts = {}
        self.awaits_port = False

    # What the person sees meanwhile

    def say(self, message: str, progress: int) -> None:
        """Something for the page of a server that starts."""
        said: list[tuple[str, int]] = self.__dict__.setdefault("_said", [])
        if not said or said[-1][0] != message:
            said.append((message, progress))

    def begin_saying(self) -> None:
        """Forget what was said of an earlier start."""
        self.__dict__["_said"] = []

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """What was said so far, and whatever is."""
        told = 0
        while True:
            said: Sequence[tuple[str, int]] = self.__dict__.get("_said", [])
            for message, progress in said[told:]:
                yield {"message": message, "progress": progress}
            told = len(said)
            await asyncio.sleep(0.5)

    async def last_words(self, account: Account) -> str:
        """The end of the server's log, one line."""
        log = self.job_facts.get("log")
        if not log:
            return ""
        try:
            said = str((await account.ask("filing", {"do": "tail", "log": log}, seconds=20))["said"])
        except HpcbinderError as error:
            return f"its log cannot be read: {error.message}"
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        return one_line(" | ".join(lines[-4:]), 600)

    async def died(self, how: str) -> web.HTTPError:
        """The error for a server that ended before it answered."""
        words = await self.last_words(self.account())
        message = f"{how}. {f'The end of its log: {words}' if words else 'Its log is empty.'}"
        self.log.warning("%s: %s", self._log_name, message)
        return failure(message, reason="died")


async def _form(spawner: ServerMixin) -> str:
    said, spawner.refused = spawner.refused or spawner.user_options, None
    return form(await spawner.offer(), said, job=spawner.has_scheduler)


async def _apply(spawner: ServerMixin, raw: object) -> None:
    """Check what a person asks for as soon as it is known, however it came; `start` checks again."""
    options, _ = await spawner.choose(raw)
    spawner.user_options = options.said()


def _fingerprint(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest() if token else ""
