// Windows by the clocks of time zones, around changes of these that the IANA database knows: by the size of the windows in hours, the moment
// of a row, and when its window begins and ends. The list is JSON, for the native tests read it too.

export const zones = [
  { "zone": "Europe/Berlin", "hours": 24, "at": "2024-03-31T12:00Z", "start": "2024-03-30T23:00Z", "end": "2024-03-31T22:00Z" },
  { "zone": "Europe/Berlin", "hours": 24, "at": "2024-10-27T22:59Z", "start": "2024-10-26T22:00Z", "end": "2024-10-27T23:00Z" },
  { "zone": "Europe/Berlin", "hours": 24, "at": "2060-06-15T12:00Z", "start": "2060-06-14T22:00Z", "end": "2060-06-15T22:00Z" },
  { "zone": "Europe/Berlin", "hours": 1, "at": "2024-10-27T00:30Z", "start": "2024-10-27T00:00Z", "end": "2024-10-27T01:00Z" },
  { "zone": "Europe/Berlin", "hours": 1, "at": "2024-10-27T01:30Z", "start": "2024-10-27T01:00Z", "end": "2024-10-27T02:00Z" },
  { "zone": "Europe/Berlin", "hours": 4, "at": "2024-10-27T00:30Z", "start": "2024-10-26T22:00Z", "end": "2024-10-27T03:00Z" },
  { "zone": "Europe/Berlin", "hours": 4, "at": "2024-03-31T00:30Z", "start": "2024-03-30T23:00Z", "end": "2024-03-31T02:00Z" },
  { "zone": "Asia/Kolkata", "hours": 24, "at": "2024-10-27T18:29Z", "start": "2024-10-26T18:30Z", "end": "2024-10-27T18:30Z" },
  { "zone": "Asia/Kolkata", "hours": 1, "at": "2024-10-27T00:29Z", "start": "2024-10-26T23:30Z", "end": "2024-10-27T00:30Z" },
  { "zone": "Australia/Lord_Howe", "hours": 24, "at": "2024-04-06T15:00Z", "start": "2024-04-06T13:00Z", "end": "2024-04-07T13:30Z" },
  { "zone": "Australia/Lord_Howe", "hours": 24, "at": "2024-10-05T15:00Z", "start": "2024-10-05T13:30Z", "end": "2024-10-06T13:00Z" },
  { "zone": "Australia/Lord_Howe", "hours": 1, "at": "2024-10-05T15:30Z", "start": "2024-10-05T15:30Z", "end": "2024-10-05T16:00Z" },
  { "zone": "Australia/Lord_Howe", "hours": 1, "at": "2024-04-06T15:10Z", "start": "2024-04-06T14:00Z", "end": "2024-04-06T15:30Z" },
  { "zone": "Australia/Sydney", "hours": 24, "at": "2024-10-05T20:00Z", "start": "2024-10-05T14:00Z", "end": "2024-10-06T13:00Z" },
  { "zone": "America/Sao_Paulo", "hours": 24, "at": "2018-11-04T03:00Z", "start": "2018-11-04T03:00Z", "end": "2018-11-05T02:00Z" },
  { "zone": "America/Sao_Paulo", "hours": 24, "at": "2019-02-17T02:30Z", "start": "2019-02-16T02:00Z", "end": "2019-02-17T03:00Z" },
  { "zone": "America/St_Johns", "hours": 24, "at": "2010-11-07T02:31Z", "start": "2010-11-07T02:30Z", "end": "2010-11-08T03:30Z" },
  { "zone": "America/St_Johns", "hours": 24, "at": "2010-11-07T02:29Z", "start": "2010-11-06T02:30Z", "end": "2010-11-07T02:30Z" },
  { "zone": "Pacific/Apia", "hours": 24, "at": "2011-12-30T09:59Z", "start": "2011-12-29T10:00Z", "end": "2011-12-30T10:00Z" },
  { "zone": "Pacific/Apia", "hours": 24, "at": "2011-12-30T10:00Z", "start": "2011-12-30T10:00Z", "end": "2011-12-31T10:00Z" }
];
