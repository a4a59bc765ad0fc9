"""The secrets of a stack's rendezvous server: what ranks must know, and the server's certificate with its key."""

import datetime
import json
import secrets
from typing import TYPE_CHECKING

from emulator.fmi.functions.execute import SERVER_NAME

if TYPE_CHECKING:
    from types_boto3_secretsmanager.client import SecretsManagerClient

_SECRET_BYTES = 32
_YEARS = 10


def write_secrets(client: "SecretsManagerClient", secret_id: str, key_id: str, *, renew: bool = False) -> bool:
    """Write the values of both secrets, unless they have values; return whether they were written.

    The values exist in this process and in Secrets Manager alone.

    Parameters
    ----------
    client
        boto3 client of Secrets Manager.
    secret_id
        The secret that ranks and the server read: what ranks prove, and the certificate.
    key_id
        The secret that the server alone reads: certificate and private key.
    renew
        Whether values are replaced. Ranks and server must then be started anew.
    """
    has_value = [bool(client.describe_secret(SecretId=name).get("VersionIdsToStages")) for name in (secret_id, key_id)]
    if all(has_value) and not renew:
        return False
    certificate, key = server_certificate()
    value = {"secret": secrets.token_urlsafe(_SECRET_BYTES), "certificate": certificate}
    client.put_secret_value(SecretId=secret_id, SecretString=json.dumps(value))
    client.put_secret_value(SecretId=key_id, SecretString=json.dumps({"pem": certificate + key}))
    return True


def server_certificate() -> tuple[str, str]:
    """Make a key, and a certificate of it that is signed by itself; return both as PEM text.

    Ranks accept this certificate alone, for the name `SERVER_NAME`, at whatever address the server has.
    """
    # Importing it takes longer than all else that a command without --backend aws does.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, SERVER_NAME)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()
