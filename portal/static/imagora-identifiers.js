// OHIF puts its own wildcards around whatever is typed: `4547` becomes `00100020=*4547*`. An identifier is either
// the patient's or it is not, and a search over a whole region takes exact ones only, so these two wildcards are
// taken off again. Those that a person types stay: `45*` is sent as typed.
(function () {
  "use strict";
  var OURS = /^(?:\/(?:folders|sites|patients)\/[^/]+)?\/dicom-web\/studies$/;
  var IDENTIFIERS = ["00100020", "AccessionNumber"];
  var nativeOpen = XMLHttpRequest.prototype.open;

  function exact(address) {
    var url = new URL(address, window.location.href);
    if (url.origin !== window.location.origin || !OURS.test(url.pathname)) {
      return address;
    }
    var changed = false;
    IDENTIFIERS.forEach(function (name) {
      var typed = /^\*(.+)\*$/.exec(url.searchParams.get(name) || "");
      if (typed) {
        url.searchParams.set(name, typed[1]);
        changed = true;
      }
    });
    return changed ? url.href : address;
  }

  XMLHttpRequest.prototype.open = function (method, address) {
    var rest = Array.prototype.slice.call(arguments);
    try {
      rest[1] = exact(address);
    } catch (error) {
      rest[1] = address; // not an address that we can read: the browser says what is wrong with it
    }
    return nativeOpen.apply(this, rest);
  };
})();
