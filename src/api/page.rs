//! The page for people who do not use kubectl, at `/`. It is in the binary: nothing is fetched from elsewhere, and
//! its policy lets it run nothing else. What it does goes through the routes that others use, with the user's token.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    VARY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::web::ServiceConfig;

/// A file of the page.
struct File {
    /// Where it is served.
    path: &'static str,
    body: &'static [u8],
    gzip: &'static [u8],
    /// Of its contents.
    etag: &'static str,
}

// FILES: what `page/dist` had when this was compiled (build.rs)
include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// Scripts and styles are the page's own files, and no text becomes a script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
    worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types worker";
const NOT_BUILT: &str = "This operator was built without the page: there was no page/dist (make page, which needs Node). \
    The API is described at /api/v1/docs/.\n";

/// Each file at its path.
pub fn routes(config: &mut ServiceConfig) {
    if FILES.is_empty() {
        let missing = async || HttpResponse::NotFound().content_type("text/plain; charset=utf-8").body(NOT_BUILT);
        config.service(super::resource("/", "GET").get(missing));
    }
    for file in FILES {
        let serve = move |request: HttpRequest| std::future::ready(answer(file, &request));
        config.service(super::resource(file.path, "GET, HEAD").get(serve).head(serve));
    }
}

fn answer(file: &File, request: &HttpRequest) -> HttpResponse {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // a name in assets/ has its contents' hash in it
    let cache = if file.path.starts_with("/assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let is_known = header(IF_NONE_MATCH).split(',').any(|known| known.trim().trim_start_matches("W/") == file.etag);
    let mut response = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header((CACHE_CONTROL, cache))
        .insert_header((ETAG, file.etag))
        .insert_header((VARY, "Accept-Encoding"))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .insert_header(("Cross-Origin-Opener-Policy", "same-origin"))
        .insert_header(("Cross-Origin-Resource-Policy", "same-origin"))
        .content_type(content_type(file.path));
    let takes_gzip = header(ACCEPT_ENCODING).split(',').any(|coding| coding.trim().starts_with("gzip"));
    match (is_known, takes_gzip && !file.gzip.is_empty()) {
        (true, _) => response.finish(),
        (false, true) => response.insert_header((CONTENT_ENCODING, "gzip")).body(file.gzip),
        (false, false) => response.body(file.body),
    }
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "text/html; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::StatusCode;
    use actix_web::test::TestRequest;

    const FILE: File = File { path: "/assets/a-1.js", body: b"plain", gzip: b"packed", etag: "\"1\"" };

    fn ask(file: &File, headers: &[(&'static str, &str)]) -> HttpResponse {
        let request = headers.iter().fold(TestRequest::get(), |request, header| request.insert_header(*header));
        answer(file, &request.to_http_request())
    }

    #[test]
    fn every_answer_has_the_policy_and_says_how_long_it_holds() {
        let index = File { path: "/", ..FILE };
        for (file, cache, kind) in [(&FILE, "immutable", "text/javascript"), (&index, "no-cache", "text/html")] {
            let answer = ask(file, &[]);
            let head = |name: &str| answer.headers().get(name).expect(name).to_str().expect("text");
            assert!(head("content-security-policy").starts_with("default-src 'none'; script-src 'self';"));
            assert!(!head("content-security-policy").contains("unsafe"));
            assert!(head("cache-control").contains(cache) && head("content-type").starts_with(kind));
            assert_eq!((head("x-content-type-options"), head("referrer-policy")), ("nosniff", "no-referrer"));
        }
    }

    #[test]
    fn who_has_a_file_is_not_sent_it_again_and_who_takes_gzip_gets_it() {
        let known = ask(&FILE, &[("If-None-Match", "W/\"1\", \"2\"")]);
        assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(ask(&FILE, &[("If-None-Match", "\"2\"")]).status(), StatusCode::OK);
        let encoding = |headers| ask(&FILE, headers).headers().get("content-encoding").is_some();
        assert!(encoding(&[("Accept-Encoding", "br, gzip;q=0.5")]) && !encoding(&[("Accept-Encoding", "br")]));
    }

    #[actix_web::test]
    async fn the_page_or_why_there_is_none() {
        use actix_web::{App, test};
        let app = test::init_service(App::new().configure(routes)).await;
        let answer = test::call_service(&app, TestRequest::get().uri("/").to_request()).await;
        assert_eq!(answer.status(), if FILES.is_empty() { 404 } else { 200 });
        let text = test::read_body(answer).await;
        let told = if FILES.is_empty() { "built without the page" } else { "<!doctype html>" };
        assert!(String::from_utf8_lossy(&text).contains(told));
    }
}
