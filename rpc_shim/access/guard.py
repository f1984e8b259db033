"""The guard of a device with access rules: lets a request through or says why not.

Order and codes are those of `mgos_rpc_req_prehandler` in mongoose-os-libs/rpc-common: 403 where the
rules deny, 401 with a challenge where they ask for a user and none is proven, 400 for
authentication data that cannot be read, 403 for a user they do not allow. Different on purpose:

- what cannot be read (rules, password file) refuses with 500; the original gives no answer for
  rules, and over HTTP a 401;
- a proof for another realm or by another algorithm is answered with a new challenge, which says
  what is expected; the original answers 400 over frames and does not look over HTTP;
- over HTTP the header's `uri` must be the request's own;
- a device with a damaged configuration has lost its rules: it refuses all calls with 500, but those
  that repair it over the serial port (see `rpc_shim.config.configuration`);
- a proof is good once, and has been used even where the rules ask for nobody's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from platforms.clock import Clock
from platforms.errors import OtasimError
from rpc_shim.access.acl import (
    ALLOW_ALL,
    DENY_ALL,
    AclError,
    find_rule,
    matches,
    may_access,
    parse_rules,
)
from rpc_shim.access.digest import (
    Algorithm,
    Challenge,
    MalformedAuthError,
    PasswordFile,
    Proof,
    is_proven,
    parse_authorization,
    parse_frame_auth,
)
from rpc_shim.access.nonces import Nonces
from rpc_shim.config.configuration import REPAIR, Configuration
from rpc_shim.config.schema import (
    RPC_ACL,
    RPC_ACL_FILE,
    RPC_AUTH_ALGO,
    RPC_AUTH_DOMAIN,
    RPC_AUTH_FILE,
)
from rpc_shim.dispatch import (
    BAD_REQUEST,
    FORBIDDEN,
    INTERNAL_ERROR,
    UNAUTHENTICATED,
    Channel,
    ChannelKind,
    HttpAuthorization,
    RpcError,
)
from rpc_shim.frame import Request, describe

_ALGORITHMS = (Algorithm.MD5, Algorithm.SHA_256)

_REPAIRS = "FS.*,Sys.Reboot"
_REPAIR_CHANNEL: ChannelKind = "UART"


@dataclass(frozen=True, slots=True)
class _Identity:
    """What a request proves.

    Attributes:
        user: whose it is; None when it proves nobody's.
        is_stale: it would, had its nonce not ended or its proof not been used.
        refusal: why it cannot be said; matters only where a user is asked for.
    """

    user: str | None = None
    is_stale: bool = False
    refusal: RpcError | None = None


class AccessGuard:
    """A `Guard` for one boot of the application; without access rules it allows everything.

    Args:
        configuration: read at each request, so that a change counts from the next one on.
        read_file: contents of a file of the device by its name, None when there is none; may raise
            an OtasimError, which lets nobody through.
        clock: virtual time.
        log: takes one line of text; what is wrong with rules and files is only told here.
        nonce_seed: differs between boards whose challenges must differ.
    """

    def __init__(
        self,
        configuration: Configuration,
        read_file: Callable[[str], bytes | None],
        clock: Clock,
        log: Callable[[str], None],
        nonce_seed: int = 0,
    ) -> None:
        self._configuration = configuration
        self._read_file = read_file
        self._log = log
        self._nonces = Nonces(clock, nonce_seed)
        # A proof is good for one HTTP request, but for all the calls that it makes.
        self._proven: WeakKeyDictionary[HttpAuthorization, str] = WeakKeyDictionary()

    def __call__(self, request: Request, channel: Channel) -> None:
        """Return when the request may be carried out; `RpcError` says why it may not."""
        if self._configuration.damage:
            if channel.kind == _REPAIR_CHANNEL and matches(_REPAIRS, request.method):
                return
            raise RpcError(INTERNAL_ERROR, f"the configuration is damaged; {REPAIR}")
        # Before any rule: a proof must not be left over for whoever has overheard it.
        try:
            identity = self._identify(request, channel)
        except RpcError as refusal:
            identity = _Identity(refusal=refusal)
        try:
            acl = self._acl_for(request.method, channel.kind)
        except AclError as error:
            self._log(f"access: all calls are refused: {error}")
            raise RpcError(INTERNAL_ERROR, "the access rules cannot be used") from error
        if acl in (ALLOW_ALL, f"+{ALLOW_ALL}"):
            return
        if acl == DENY_ALL:
            raise RpcError(FORBIDDEN, "unauthorized")
        if identity.refusal is not None:
            raise identity.refusal
        if identity.user is None:
            raise RpcError(UNAUTHENTICATED, self._challenge(identity).as_message())
        if not may_access(identity.user, acl):
            raise RpcError(FORBIDDEN, "unauthorized")

    def _acl_for(self, method: str, channel: ChannelKind) -> str:
        """Who may call: what the first rule that applies says."""
        acl = self._configuration.get(RPC_ACL)
        acl_file = self._configuration.get(RPC_ACL_FILE)
        if acl and acl_file:
            raise AclError("both rpc.acl and rpc.acl_file are set: expected one of them")
        if acl.startswith("@"):
            acl_file = acl.removeprefix("@")
        if acl_file:
            data = self._read(acl_file)
            if data is None:
                raise AclError(f"the file {describe(acl_file)} cannot be read")
            acl = data.decode("utf-8", "replace")
        elif not acl:
            return ALLOW_ALL
        rule = find_rule(parse_rules(acl), method, channel)
        return DENY_ALL if rule is None else rule.acl

    def _identify(self, request: Request, channel: Channel) -> _Identity:
        """Who asks; uses up what the request offers to prove it."""
        authorization = channel.authorization
        if authorization is not None and authorization in self._proven:
            return _Identity(self._proven[authorization])
        auth_file = self._configuration.get(RPC_AUTH_FILE)
        if not auth_file or not self._realm:
            return _Identity()
        proofs = _proofs(request, channel)
        passwords = self._passwords(auth_file) if proofs else PasswordFile({})
        right = [
            proof for proof in proofs if is_proven(proof, passwords, self._realm, self._algorithm)
        ]
        fresh = [proof for proof in right if self._nonces.use(proof)]
        if not fresh:
            return _Identity(is_stale=bool(right))
        if authorization is not None and request.auth is None:
            self._proven[authorization] = fresh[0].username
        return _Identity(fresh[0].username)

    def _challenge(self, identity: _Identity) -> Challenge:
        return Challenge(
            self._realm, self._algorithm, self._nonces.issue(), stale=identity.is_stale
        )

    @property
    def _realm(self) -> str:
        return self._configuration.get(RPC_AUTH_DOMAIN)

    @property
    def _algorithm(self) -> Algorithm:
        return _ALGORITHMS[self._configuration.get(RPC_AUTH_ALGO)]

    def _passwords(self, name: str) -> PasswordFile:
        data = self._read(name)
        if data is None:
            self._log(f"access: the password file {describe(name)} cannot be read")
            raise RpcError(INTERNAL_ERROR, "failed to open password file")
        passwords = PasswordFile.parse(data)
        if passwords.problems:
            self._log(
                f"access: {len(passwords.problems)} bad lines in {describe(name)}, "
                f"the first: {passwords.problems[0]}"
            )
        return passwords

    def _read(self, name: str) -> bytes | None:
        try:
            return self._read_file(name)
        except OtasimError as error:
            self._log(f"access: {describe(name)}: {error}")
            return None


def _proofs(request: Request, channel: Channel) -> list[Proof]:
    """What the client offers: in the frame, and in HTTP's header."""
    try:
        proofs = [] if request.auth is None else [parse_frame_auth(request.auth)]
        if channel.authorization is not None:
            from_header = parse_authorization(channel.authorization)
            proofs += [] if from_header is None else [from_header]
    except MalformedAuthError as error:
        raise RpcError(BAD_REQUEST, f"bad request: {error}") from error
    return proofs
