//! reqwest with its default settings: one GET and one POST at URL; prints everything that came back, fields included.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = std::env::args().nth(1).ok_or("no URL")?;
    let client = reqwest::blocking::Client::new();
    let asked = [
        client.get(format!("{url}/echo/fields")),
        client.post(format!("{url}/echo/body")).body("x".repeat(4096)),
    ];
    for request in asked {
        let answer = request.send()?.error_for_status()?;
        println!("{:?} {} {:?}", answer.version(), answer.status(), answer.headers());
        println!("{}", answer.text()?);
    }
    Ok(())
}
