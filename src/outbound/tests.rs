use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::*;

fn install_tls() {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn settings(url: &str) -> OutboundSettings {
    OutboundSettings {
        url: url.to_owned(),
        auth: AuthSettings::None,
        headers: Vec::new(),
        tls: TlsSettings::default(),
        proxy_from_environment: false,
        connect_timeout_ms: 2_000,
        timeout_ms: 5_000,
    }
}

/// Answers every request with `answer`, over TLS where there is a configuration; hands over the
/// requests' heads.
fn serve(answer: &'static str, tls: Option<Arc<ServerConfig>>) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (send, heads) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let head = match &tls {
                None => converse(stream, answer),
                Some(config) => {
                    let session = ServerConnection::new(config.clone()).unwrap();
                    converse(StreamOwned::new(session, stream), answer)
                }
            };
            // A handshake that fails is the client's to report.
            if let Ok(head) = head
                && send.send(head).is_err()
            {
                return;
            }
        }
    });
    (address, heads)
}

fn converse(stream: impl std::io::Read + std::io::Write, answer: &str) -> std::io::Result<String> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while stream.read_line(&mut head)? > 2 {}
    let stream = stream.get_mut();
    write!(
        stream,
        "HTTP/1.1 {answer}Content-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    stream.flush()?;
    Ok(head)
}

async fn send(peer: &Outbound, path: &str) -> Result<u16, String> {
    let request = peer
        .request(Method::GET, path)
        .await
        .map_err(|error| error.to_string())?;
    let response = request.send().await.map_err(reason)?;
    Ok(response.status().as_u16())
}

#[tokio::test]
async fn requests_say_who_we_are_and_go_below_the_base() {
    install_tls();
    let (address, heads) = serve("200 OK\r\n", None);
    let mut peer = settings(&format!("http://us%40er:p%3Ass@{address}/base/"));
    peer.headers = vec![("X-Scope-OrgID".to_owned(), Secret::new("shop"))];
    let peer = Outbound::new(&peer).unwrap();
    assert_eq!(peer.name(), format!("http://{address}/base"));
    assert_eq!(send(&peer, "/api/v1/query").await, Ok(200));
    let head = heads.recv().unwrap();
    assert!(
        head.starts_with("GET /base/api/v1/query HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("x-scope-orgid: shop\r\n"), "{head}");
    assert!(
        head.contains(&format!("user-agent: {USER_AGENT}\r\n")),
        "{head}"
    );
    // us@er:p:ss
    assert!(
        head.contains("authorization: Basic dXNAZXI6cDpzcw==\r\n"),
        "{head}"
    );
    assert!(!format!("{peer:?}").contains("shop"));
}

#[tokio::test]
async fn a_new_token_in_the_file_is_sent_at_once() {
    install_tls();
    let (address, heads) = serve("200 OK\r\n", None);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let mut peer = settings(&format!("http://{address}"));
    peer.auth = AuthSettings::Bearer(SecretFrom::File(file.clone()));
    let peer = Outbound::new(&peer).unwrap();
    let missing = send(&peer, "").await.unwrap_err();
    assert!(missing.contains("token: "), "{missing}");
    for token in ["one", "two"] {
        std::fs::write(&file, format!("{token}\n")).unwrap();
        assert_eq!(send(&peer, "").await, Ok(200));
        let head = heads.recv().unwrap();
        assert!(
            head.contains(&format!("authorization: Bearer {token}\r\n")),
            "{head}"
        );
    }
}

/// Following would show headers with keys to whoever the answer names.
#[tokio::test]
async fn redirects_are_not_followed() {
    install_tls();
    let (elsewhere, _heads) = serve("200 OK\r\n", None);
    let answer = format!("302 Found\r\nLocation: http://{elsewhere}/\r\n");
    let (address, _heads) = serve(answer.leak(), None);
    let peer = Outbound::new(&settings(&format!("http://{address}"))).unwrap();
    assert_eq!(send(&peer, "").await, Ok(302));
}

/// An authority, and what it signed for a server on 127.0.0.1 and for a client.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate and its key for `name`, as PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    /// A server that wants clients to have a certificate of the authority, if `mutual`.
    fn server(&self, mutual: bool) -> Arc<ServerConfig> {
        let (cert, key) = self.sign("127.0.0.1");
        let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder();
        let config = if mutual {
            let mut roots = RootCertStore::empty();
            roots.add(self.0.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
                .build()
                .unwrap();
            config.with_client_cert_verifier(verifier)
        } else {
            config.with_no_client_auth()
        };
        Arc::new(config.with_single_cert(vec![cert], key).unwrap())
    }
}

#[tokio::test]
async fn only_the_authority_of_the_settings_is_trusted() {
    install_tls();
    let (ours, other) = (Authority::new(), Authority::new());
    let (address, _heads) = serve("200 OK\r\n", Some(ours.server(false)));
    let dir = tempfile::tempdir().unwrap();
    let mut peer = settings(&format!("https://{address}"));
    let untrusted = Outbound::new(&peer).unwrap();
    let error = send(&untrusted, "").await.unwrap_err();
    assert!(error.contains("certificate"), "{error}");

    let file = dir.path().join("ca.pem");
    std::fs::write(&file, other.0.pem()).unwrap();
    peer.tls.ca_file = Some(file.clone());
    let trusting = Outbound::new(&peer).unwrap();
    assert!(send(&trusting, "").await.is_err());
    // The file is replaced, with another length so that the clock's grain does not matter.
    std::fs::write(&file, format!("{}{}", ours.0.pem(), other.0.pem())).unwrap();
    assert_eq!(send(&trusting, "").await, Ok(200));
    // One that is no certificate does not take the old one away.
    std::fs::write(&file, "nothing").unwrap();
    assert_eq!(send(&trusting, "").await, Ok(200));
    assert!(matches!(
        Outbound::new(&peer),
        Err(OutboundError::File { .. })
    ));

    peer.tls = TlsSettings {
        insecure_skip_verify: true,
        ..TlsSettings::default()
    };
    assert_eq!(send(&Outbound::new(&peer).unwrap(), "").await, Ok(200));
}

#[tokio::test]
async fn a_server_can_ask_for_our_certificate() {
    install_tls();
    let authority = Authority::new();
    let (address, _heads) = serve("200 OK\r\n", Some(authority.server(true)));
    let dir = tempfile::tempdir().unwrap();
    let [ca, cert, key] = ["ca", "cert", "key"].map(|name| dir.path().join(name));
    let ours = authority.sign("slogate");
    std::fs::write(&ca, authority.0.pem()).unwrap();
    std::fs::write(&cert, ours.0).unwrap();
    std::fs::write(&key, ours.1).unwrap();
    let mut peer = settings(&format!("https://{address}"));
    peer.tls.ca_file = Some(ca);
    assert!(send(&Outbound::new(&peer).unwrap(), "").await.is_err());
    peer.tls.identity = Some((cert, key));
    assert_eq!(send(&Outbound::new(&peer).unwrap(), "").await, Ok(200));
}

#[test]
fn escapes_of_a_url_are_undone() {
    assert_eq!(decoded("a%40b%zz%"), "a@b%zz%");
}
