// The viewer's configuration: one data source, this server. No address is taken from the query string.
(function () {
  const root = window.location.origin + '/dicom-web';
  const notices = [
    ['fr', 'Consultation seulement, pas de diagnostic primaire'],
    ['en', 'Consultation only, not for primary diagnosis'],
  ];

  // On a tablet held upright or a phone the picture takes the width; a tap brings the list of series back.
  const narrow = window.innerWidth < 900;
  const pictureOnly = { props: { leftPanelClosed: { $set: true } } };
  if (narrow) {
    // The bar above has no room for it.
    const style = 'position:fixed;z-index:40;bottom:56px;left:0;right:0;text-align:center;pointer-events:none;font:11px sans-serif;color:#f5c542';
    const note = Object.assign(document.createElement('div'), { role: 'note' });
    note.style.cssText = style;
    note.append(...notices.map(([lang, text]) => Object.assign(document.createElement('div'), { lang, textContent: text })));
    window.addEventListener('DOMContentLoaded', () => document.body.append(note));
  }

  // A search names patients, and an address ends up in histories and logs: searches go out as POST.
  const open = XMLHttpRequest.prototype.open;
  const send = XMLHttpRequest.prototype.send;
  const queries = new WeakMap();
  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    const [path, query] = String(url).split('?');
    if (method.toUpperCase() !== 'GET' || !query || !path.startsWith(root + '/')) {
      return open.call(this, method, url, ...rest);
    }
    queries.set(this, query);
    return open.call(this, 'POST', root + '/search' + path.slice(root.length), ...rest);
  };
  XMLHttpRequest.prototype.send = function (body) {
    if (!queries.has(this)) return send.call(this, body);
    this.setRequestHeader('Content-Type', 'application/x-www-form-urlencoded');
    return send.call(this, queries.get(this));
  };

  window.config = {
    name: 'sansfilm',
    routerBasename: '/',
    extensions: [],
    modes: [],
    modesConfiguration: narrow ? { '@ohif/mode-longitudinal': { routes: { 0: { layoutInstance: pictureOnly } } } } : {},
    // The list of studies is ours, at the root.
    showStudyList: false,
    maxNumberOfWebWorkers: 3,
    showWarningMessageForCrossOrigin: false,
    showCPUFallbackMessage: true,
    showLoadingIndicator: true,
    strictZSpacingForVolumeViewport: true,
    allowMultiSelectExport: false,
    maxNumRequests: { interaction: 100, thumbnail: 75, prefetch: 25 },
    showErrorDetails: 'dev',
    disableConfirmationPrompts: false,
    investigationalUseDialog: { option: 'always' },
    // No guided tour over the first image.
    customizationService: { 'ohif.tours': { $set: [] } },
    whiteLabeling: {
      createLogoComponentFn: function (React) {
        return React.createElement(
          'div',
          { style: { display: 'flex', alignItems: 'center', gap: '12px' } },
          React.createElement(
            'a',
            { href: '/', 'aria-label': 'Back to the studies', style: { color: '#fff', fontWeight: 600 } },
            narrow ? '←' : '← sansfilm'
          ),
          narrow ? null : React.createElement(
            'div',
            { role: 'note', style: { color: '#f5c542', fontSize: '11px', lineHeight: '14px', whiteSpace: 'nowrap' } },
            notices.map(([lang, text]) => React.createElement('div', { key: lang, lang }, text))
          )
        );
      },
    },
    defaultDataSourceName: 'dicomweb',
    dataSources: [
      {
        namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
        sourceName: 'dicomweb',
        configuration: {
          friendlyName: 'sansfilm',
          name: 'sansfilm',
          wadoUriRoot: root,
          qidoRoot: root,
          wadoRoot: root,
          qidoSupportsIncludeField: true,
          supportsFuzzyMatching: false,
          supportsWildcard: true,
          supportsReject: false,
          supportsStow: false,
          dicomUploadEnabled: false,
          imageRendering: 'wadors',
          thumbnailRendering: 'wadors',
          enableStudyLazyLoad: true,
          omitQuotationForMultipartRequest: true,
          bulkDataURI: { enabled: true },
        },
      },
    ],
  };
})();
