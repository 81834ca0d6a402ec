// Plays what the page has loaded, switches its quality down and up on the way, and notes what a viewer would
// notice: errors, stalls, gaps, an end that is not reached. The notes are in window.watched.
({ rate, skipTo, segments }) => {
  const STALL = 2; // seconds without progress
  const GAP = 0.1; // seconds
  const START = 0.5; // seconds in which a track may begin later than another, as in its source
  const SMOOTH = 5; // segments that it takes to switch a few times without throwing away what is about to be shown
  const SHORTEST = 3; // seconds; what is shorter is over before a player has switched
  const HOLD = 0.4; // seconds
  const ENDING = 1.5; // seconds before the end, where there is nothing left to switch to
  const video = document.getElementById("video");
  const watched = (window.watched = {
    done: false, began: null, time: 0, duration: 0, sizes: [], switches: 0,
    stalls: [], gaps: [], jumped: [], skipped: false,
  });
  const isHls = () => typeof Hls !== "undefined" && window.player instanceof Hls;

  // Levels, lowest first, and a way to choose one.
  function levels() {
    if (isHls()) {
      return player.levels.map((level, index) => ({ height: level.height, index }));
    }
    const seen = new Map();
    for (const track of player.getVariantTracks()) {
      const active = player.getVariantTracks().find((one) => one.active);
      if (track.height && (!active || track.language === active.language && track.channelsCount === active.channelsCount)) {
        seen.set(track.height, { height: track.height, track });
      }
    }
    return [...seen.values()].sort((a, b) => a.height - b.height);
  }

  const smoothly = segments >= SMOOTH;
  function choose(level) {
    watched.switches += 1;
    if (!isHls()) {
      player.configure({ abr: { enabled: false } });
      player.selectVariantTrack(level.track, true, smoothly ? 1 : 0);
    } else {
      player.nextLevel = level.index; // from the next segment on, as Chromium shows a group of pictures to its end
    }
  }

  // Up, down, up, down: each choice waits until the one before it has been on the screen for a while.
  let left = null;
  let asked = null;
  let shownSince = 0;
  function follow() {
    if (left === null) {
      const there = levels();
      const [low, high] = [there[0], there[there.length - 1]];
      left = there.length < 2 || video.duration < SHORTEST ? [] : [high, low, high, low];
    }
    if (asked) {
      if (video.videoHeight !== asked.height) return;
      shownSince = video.currentTime;
      asked = null;
    }
    const late = video.duration - video.currentTime < ENDING;
    if (left.length && !late && video.currentTime >= shownSince + HOLD) {
      const next = left.shift();
      if (next.height === video.videoHeight) return; // as it is already
      asked = next;
      choose(asked);
    }
  }

  let moved = performance.now();
  let last = -1;
  let rateSet = false;
  let jumps = 0;
  const timer = setInterval(() => {
    if (!window.player || video.readyState === 0) return;
    if (!rateSet && isHls()) {
      player.config.maxBufferLength = 6; // so that a choice shows before everything is there
      player.config.maxMaxBufferLength = 6;
    } else if (!rateSet) {
      player.configure({ streaming: { bufferingGoal: 6, rebufferingGoal: 0.5 } });
    }
    rateSet = true;
    // Shaka's own way of waiting is a rate of 0, which is not to be overruled.
    if (video.playbackRate !== rate && video.playbackRate !== 0 && video.currentTime > 0) {
      video.defaultPlaybackRate = rate;
      video.playbackRate = rate;
    }
    const now = performance.now();
    if (video.currentTime !== last) {
      if (watched.began === null && video.currentTime > 0) watched.began = video.currentTime;
      last = video.currentTime;
      moved = now;
    } else if (!video.ended && watched.began !== null && now - moved > STALL * 1000) {
      watched.stalls.push(video.currentTime);
      moved = now;
    }
    watched.time = video.currentTime;
    watched.duration = video.duration;
    if (video.videoHeight && watched.sizes[watched.sizes.length - 1] !== video.videoHeight) {
      watched.sizes.push(video.videoHeight);
    }
    const { buffered } = video;
    for (let index = 1; index < buffered.length; index += 1) {
      const [from, to] = [buffered.end(index - 1), buffered.start(index)];
      // Only what has been played over is a gap: ahead, parts may come in any order.
      if (to <= video.currentTime && to - from > GAP && !(watched.skipped && from < skipTo)) {
        watched.gaps.push([from, to]);
      }
    }
    if (window.player.getStats && player.getStats().gapsJumped > jumps) {
      jumps = player.getStats().gapsJumped;
      if (video.currentTime > START) watched.jumped.push(video.currentTime);
    }
    follow();
    if (skipTo && !watched.skipped && left.length === 0 && video.currentTime > 12) {
      watched.skipped = true;
      video.currentTime = skipTo;
    }
    if (video.ended) {
      watched.done = true;
      clearInterval(timer);
    }
  }, 40);
}
