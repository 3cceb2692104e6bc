use proptest::prelude::*;

use super::*;

fn join(messages: &[&[u8]]) -> Vec<u8> {
    messages.iter().flat_map(|message| [&(message.len() as u32).to_le_bytes()[..], message].concat()).collect()
}

fn status<T>(result: Result<T, Refused>) -> StatusCode {
    result.map(drop).expect_err("refused").0
}

#[tokio::test]
async fn messages_come_once_and_in_order_however_often_a_request_is_made() {
    let exchange = Exchange::new();
    exchange.take(0, &join(&[b"a", b""])).await.unwrap();
    // Its answer got lost.
    exchange.take(0, &join(&[b"a", b"", b"c"])).await.unwrap();
    exchange.take(1, &join(&[b""])).await.unwrap();
    assert_eq!(status(exchange.take(4, &join(&[b"e"])).await), StatusCode::CONFLICT);
    assert_eq!(status(exchange.take(3, &[1, 0, 0, 0]).await), StatusCode::BAD_REQUEST);
    exchange.take(3, &join(&[b"d"])).await.unwrap();
    for expected in [&b"a"[..], b"", b"c", b"d"] {
        assert_eq!(exchange.receive().await.unwrap().unwrap(), expected);
    }

    for message in [b"x", b"y"] {
        exchange.send(message.to_vec()).await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!(exchange.tell(0).await.unwrap(), join(&[b"x", b"y"]));
    }
    assert_eq!(exchange.tell(1).await.unwrap(), join(&[b"y"]));
    assert_eq!(status(exchange.tell(0).await), StatusCode::CONFLICT, "given up");
    assert_eq!(status(exchange.tell(3).await), StatusCode::CONFLICT, "not sent yet");
    exchange.close().await;
    assert_eq!(exchange.tell(1).await.unwrap(), join(&[b"y"]), "what was sent before the end");
    assert_eq!(status(exchange.tell(2).await), StatusCode::GONE);
    assert_eq!(exchange.send(b"z".to_vec()).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_client_that_leaves_has_left_after_what_it_sent() {
    let exchange = Exchange::new();
    exchange.take(0, &join(&[b"a"])).await.unwrap();
    exchange.leave();
    assert_eq!(exchange.receive().await.unwrap().unwrap(), b"a");
    assert_eq!(exchange.receive().await.unwrap(), None);
    assert_eq!(status(exchange.take(1, &join(&[b"b"])).await), StatusCode::GONE);
}

#[tokio::test]
async fn a_request_for_messages_is_answered_by_the_first_one() {
    let exchange = Arc::new(Exchange::new());
    let asked = exchange.clone();
    let told = tokio::spawn(async move { asked.tell(0).await.unwrap() });
    tokio::task::yield_now().await;
    exchange.send(b"x".to_vec()).await.unwrap();
    assert_eq!(told.await.unwrap(), join(&[b"x"]));
}

#[tokio::test(start_paused = true)]
async fn time_goes_by() {
    let exchange = Exchange::new();
    let start = Instant::now();
    {
        let _asking = exchange.asking();
        assert!(exchange.tell(0).await.unwrap().is_empty());
        assert_eq!(start.elapsed(), WAIT);
    }
    // As long as the last message is not had, the next one waits; it goes where the limit would be passed.
    let large = vec![7; ANSWER_BYTES];
    exchange.send(large.clone()).await.unwrap();
    let second = exchange.send(b"y".to_vec());
    tokio::pin!(second);
    assert!(tokio::time::timeout(IDLE / 2, second.as_mut()).await.is_err());
    assert_eq!(exchange.tell(0).await.unwrap(), join(&[&large]));
    let (told, sent) = tokio::join!(exchange.tell(1), second);
    sent.unwrap();
    assert_eq!(told.unwrap(), join(&[b"y"]));
    // Nobody asks any more.
    assert_eq!(exchange.receive().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(start.elapsed(), WAIT + IDLE);
    exchange.send(large).await.unwrap_err();
}

proptest! {
    #[test]
    fn a_body_is_messages_or_refused(body in proptest::collection::vec(any::<u8>(), 0..64), lens in proptest::collection::vec(0..9u32, 0..6)) {
        if let Ok(messages) = split(&body) {
            prop_assert_eq!(join(&messages), body);
        }
        let messages: Vec<Vec<u8>> = lens.iter().map(|&len| vec![1; len as usize]).collect();
        let messages: Vec<&[u8]> = messages.iter().map(|message| &message[..]).collect();
        let whole = join(&messages);
        prop_assert_eq!(split(&whole).unwrap(), messages);
        for end in 0..whole.len() {
            if let Ok(cut) = split(&whole[..end]) {
                prop_assert!(cut.len() < lens.len());
            }
        }
    }
}
