//! Files that refer to other files and hosts.

use std::{net::TcpListener, path::Path};

use crate::{
    boxes::{Mp4Box, VIDEO, X264, clip, find},
    cases::{Cases, Expected::*},
};

#[test]
fn references_to_other_files_and_hosts_are_not_followed() {
    let mut cases = Cases::new();
    // The referenced file is a playable video.
    let clip = clip(&cases);
    let path = cases.folder.path().join("secret.mp4");
    std::fs::write(&path, &clip).unwrap();
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    host.set_nonblocking(true).unwrap();
    let address = host.local_addr().unwrap();
    for target in
        [format!("file://{}", path.display()), path.display().to_string(), format!("http://{address}/a.mp4")]
    {
        for (name, text) in [
            ("HLS", format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n")),
            ("concat", format!("ffconcat version 1.0\nfile '{target}'\n")),
            ("metadata", format!(";FFMETADATA1\ntitle={target}\n")),
            (
                "SDP",
                format!(
                    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video {} RTP/AVP 96\na=control:{target}\n",
                    address.port()
                ),
            ),
            (
                "DASH",
                format!(
                    "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\"><Period>\
                 <AdaptationSet mimeType=\"video/mp4\"><Representation id=\"1\" bandwidth=\"1\"><BaseURL>{target}\
                 </BaseURL></Representation></AdaptationSet></Period></MPD>"
                ),
            ),
            ("SVG", format!("<svg xmlns=\"http://www.w3.org/2000/svg\"><image href=\"{target}\"/></svg>")),
        ] {
            cases.add(&format!("{name} to {}", &target[..7]), text, Rejected("not a"));
        }
    }
    // A QuickTime track may refer to samples in another file. This file has no samples of its own.
    let elsewhere = |entry: Mp4Box| {
        let mut boxes = Mp4Box::parse(&clip);
        boxes.retain(|one| &one.kind != b"mdat");
        let references = find(&mut boxes, "moov/trak/mdia/minf/dinf/dref");
        references.children = vec![entry];
        Mp4Box::write(&boxes)
    };
    for target in [format!("file://{}", path.display()), format!("http://{address}/a.mp4")] {
        let url = Mp4Box::new(b"url ", [&[0; 4], target.as_bytes(), &[0]].concat());
        cases.add(
            &format!("a track at {}", &target[..7]),
            elsewhere(url),
            Rejected("nothing, or next to nothing, in it can be decoded"),
        );
    }
    cases.add(
        "a track in another file",
        elsewhere(alias(&path)),
        Rejected("nothing, or next to nothing, in it can be decoded"),
    );
    let attached = cases.generate(
        &format!("{VIDEO} {X264} -attach {} -metadata:s:t mimetype=text/plain", path.display()),
        "mkv",
    );
    cases.add("an attachment", attached, Published);
    cases.run();
    assert_eq!(
        host.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock,
        "the program connected to the host"
    );
}

/// A Macintosh alias in the form that FFmpeg reads.
fn alias(target: &Path) -> Mp4Box {
    let path = target.to_str().unwrap().as_bytes();
    let name = target.file_name().unwrap().to_str().unwrap().as_bytes();
    let mut content = vec![0; 4 + 10];
    content.push(1);
    content.extend([b"a".as_slice(), &[0; 26]].concat());
    content.extend([0; 12]);
    content.push(name.len() as u8);
    content.extend([name, &vec![0; 63 - name.len()]].concat());
    content.extend([0; 16]);
    content.extend([0, 1, 0, 1]);
    content.extend([0; 16]);
    // The absolute path.
    content.extend(2_u16.to_be_bytes());
    content.extend((path.len() as u16).to_be_bytes());
    content.extend(path);
    content.extend([0xff, 0xff, 0, 0]);
    Mp4Box::new(b"alis", content)
}
