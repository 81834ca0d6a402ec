// Observes playback in the player page, and switches the quality up and down meanwhile. It records in window.playback
// what a viewer would notice: stalls, gaps, jumps, and an end that is not reached.
({ rate, skipTo, segments }) => {
  const ROUND = 40; // milliseconds between two looks at the player
  // Rounds without progress, although the player has enough to continue. These are rounds and not seconds, because a
  // busy machine delays the player and this script alike. A player that has nothing buffered waits for the server; if
  // it waits for ever, it does not reach the end.
  const STALL = 50;
  const ENOUGH = 0.5; // seconds that are buffered ahead
  const GAP = 0.1; // seconds
  const START = 0.5; // seconds: a track may begin this much later than another, as in its source
  const SMOOTH_SEGMENTS = 5; // with fewer segments, a switch discards the buffer; otherwise it would come too late
  const SHORTEST = 3; // seconds; a shorter stream ends before a player has switched
  const HOLD = 0.4; // seconds that each quality is shown before the next switch
  const ENDING = 1.5; // seconds before the end in which no switch is made
  const LAST_FRAME = 0.6; // seconds: a picture that stands still is repeated twice a second
  const video = document.getElementById("video");
  const playback = (window.playback = {
    done: false, startedAt: null, time: 0, duration: 0, heights: [], requests: [], shown: 0,
    stalls: [], gaps: [], jumps: [], skipped: false, lastFrame: 0, audioBytes: 0,
  });
  const isHls = () => typeof Hls !== "undefined" && window.player instanceof Hls;

  // The levels by height, lowest first, each with the index or track that selects it.
  function levels() {
    if (isHls()) {
      return player.levels.map((level, index) => ({ height: level.height, index }));
    }
    const byHeight = new Map();
    const tracks = player.getVariantTracks();
    const active = tracks.find((track) => track.active);
    for (const track of tracks) {
      const sameAudio = !active
        || track.language === active.language && track.channelsCount === active.channelsCount;
      if (track.height && sameAudio) {
        byHeight.set(track.height, { height: track.height, track });
      }
    }
    return [...byHeight.values()].sort((a, b) => a.height - b.height);
  }

  function select(level) {
    playback.requests.push(video.currentTime);
    if (!isHls()) {
      player.selectVariantTrack(level.track, true, segments >= SMOOTH_SEGMENTS ? 1 : 0);
      return;
    }
    // hls.js switches at the segment that it expects to have loaded in time, by the bandwidth that it has measured.
    // On a busy machine, that is after the end of a short stream. While the video is paused, hls.js switches at the
    // next segment. So the video is paused until that segment is buffered.
    video.pause();
    awaitedLevel = level.index;
    roundsWithAll = 0;
    player.nextLevel = level.index; // from the next segment, because Chromium shows a group of pictures to its end
  }

  let awaitedLevel = null; // the level of hls.js whose next segment is not buffered yet
  let roundsWithAll = 0;
  function continueWhenBuffered() {
    if (awaitedLevel === null) return;
    // After the last segment, there is none to wait for.
    const hasAll = bufferedAhead() >= video.duration - video.currentTime - GAP;
    roundsWithAll = hasAll ? roundsWithAll + 1 : 0;
    if (roundsWithAll === STALL) play();
  }
  function play() {
    awaitedLevel = null;
    video.play();
  }

  // Up, down, up, down. Each switch waits until the previous level was shown for HOLD seconds.
  let remaining = null;
  let requested = null;
  let shownSince = 0;
  function switchLevels() {
    if (remaining === null) {
      const available = levels();
      const [low, high] = [available[0], available[available.length - 1]];
      remaining = available.length < 2 || video.duration < SHORTEST ? [] : [high, low, high, low];
    }
    if (requested) return;
    const isEnding = video.duration - video.currentTime < ENDING;
    if (remaining.length && !isEnding && video.currentTime >= shownSince + HOLD) {
      const next = remaining.shift();
      if (next.height === video.videoHeight) return; // shown already
      requested = next;
      select(requested);
    }
  }

  // Seconds that can be played without another segment.
  function bufferedAhead() {
    const { buffered, currentTime } = video;
    for (let index = 0; index < buffered.length; index += 1) {
      if (buffered.start(index) <= currentTime && currentTime <= buffered.end(index)) {
        return buffered.end(index) - currentTime;
      }
    }
    return 0;
  }

  // Everything that was ever buffered: ranges in order. A player removes what it has buffered when the quality is
  // switched, and on a busy machine it has already played the beginning of that.
  let filled = [];
  function remember(start, end) {
    const touching = filled.filter(([from, to]) => from <= end && start <= to);
    const rest = filled.filter((range) => !touching.includes(range));
    const joined = [Math.min(start, ...touching.map(([from]) => from)), Math.max(end, ...touching.map(([, to]) => to))];
    filled = [...rest, joined].sort(([one], [other]) => one - other);
  }

  video.requestVideoFrameCallback(function onFrame(_, { mediaTime }) {
    playback.lastFrame = mediaTime;
    video.requestVideoFrameCallback(onFrame);
  });

  function noteHeight() {
    if (video.videoHeight && playback.heights[playback.heights.length - 1] !== video.videoHeight) {
      playback.heights.push(video.videoHeight);
    }
    if (requested && video.videoHeight === requested.height) {
      shownSince = video.currentTime;
      requested = null;
      playback.shown += 1;
    }
  }
  // A delayed round could miss a quality that is shown for a short time.
  video.addEventListener("resize", noteHeight);

  let roundsAtEnd = 0;
  let hasSoughtEnd = false;
  let idleRounds = 0;
  let lastTime = -1;
  let isConfigured = false;
  let jumpCount = 0;
  const timer = setInterval(() => {
    if (!window.player || video.readyState === 0) return;
    // Sets a small buffer, so that a switch takes effect before all segments are loaded.
    if (!isConfigured && isHls()) {
      player.config.maxBufferLength = 6;
      player.config.maxMaxBufferLength = 6;
    } else if (!isConfigured) {
      player.configure({ streaming: { bufferingGoal: 6, rebufferingGoal: 0.5 } });
    }
    if (!isConfigured && isHls()) {
      player.on(Hls.Events.FRAG_BUFFERED, (_, { frag }) => {
        if (frag.type === "main" && frag.level === awaitedLevel) play();
      });
      // hls.js steps over the small hole that a switch can leave where it discards the buffer. A viewer notices only
      // larger ones. Its message is "fragment loaded with buffer holes, seeking from SECONDS to SECONDS".
      player.on(Hls.Events.ERROR, (_, { details, reason }) => {
        const hole = details === "bufferSeekOverHole" && /seeking from ([\d.]+) to ([\d.]+)/.exec(reason);
        if (hole && hole[2] - hole[1] > GAP) playback.jumps.push(Number(hole[1]));
      });
    }
    isConfigured = true;
    // Shaka Player sets the rate to 0 while it buffers; this must not be changed.
    if (video.playbackRate !== rate && video.playbackRate !== 0 && video.currentTime > 0) {
      video.defaultPlaybackRate = rate;
      video.playbackRate = rate;
    }
    const canContinue = bufferedAhead() >= Math.min(ENOUGH, video.duration - video.currentTime);
    if (video.currentTime !== lastTime) {
      if (playback.startedAt === null && video.currentTime > 0) playback.startedAt = video.currentTime;
      lastTime = video.currentTime;
      idleRounds = 0;
    } else if (!video.ended && awaitedLevel === null && playback.startedAt !== null && canContinue) {
      idleRounds += 1;
      if (idleRounds === STALL) playback.stalls.push(video.currentTime);
    }
    playback.time = video.currentTime;
    playback.duration = video.duration;
    noteHeight();
    for (let index = 0; index < video.buffered.length; index += 1) {
      remember(video.buffered.start(index), video.buffered.end(index));
    }
    // Only gaps behind the current time count, because segments ahead of it can arrive in any order.
    playback.gaps = filled.slice(1)
      .map(([to], index) => [filled[index][1], to])
      .filter(([from, to]) => to <= video.currentTime && to - from > GAP && !(playback.skipped && from < skipTo));
    if (window.player.getStats && player.getStats().gapsJumped > jumpCount) {
      jumpCount = player.getStats().gapsJumped;
      if (video.currentTime > START) playback.jumps.push(video.currentTime);
    }
    switchLevels();
    continueWhenBuffered();
    if (skipTo && !playback.skipped && remaining.length === 0 && video.currentTime > 12) {
      playback.skipped = true;
      video.currentTime = skipTo;
    }
    playback.audioBytes = video.webkitAudioDecodedByteCount;
    if (video.ended) {
      roundsAtEnd += 1;
      const isShown = video.duration - playback.lastFrame <= LAST_FRAME;
      if (isShown || roundsAtEnd === STALL && hasSoughtEnd) {
        playback.done = true;
        clearInterval(timer);
      } else if (roundsAtEnd === STALL) {
        // A busy machine drops frames, but not the one that a seek ends with. The callback can come after the end.
        hasSoughtEnd = true;
        roundsAtEnd = 0;
        video.currentTime = video.duration - LAST_FRAME / 2;
        video.play();
      }
    }
  }, ROUND);
}
